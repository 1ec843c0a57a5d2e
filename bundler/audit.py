"""What is installed against its digests."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from bundler.content import holds
from bundler.digest import Digest, digest_of
from bundler.disk import names_in
from bundler.environment import Roots, find_roots
from bundler.errors import UnavailableError
from bundler.filled import filled_folders, places_below
from bundler.layouts.hf_cache import listed
from bundler.manifest import Manifest
from bundler.needed import needed
from bundler.parallel import Count, each_in_threads
from bundler.progress import Progress, Silent
from bundler.receipt import InstalledFile, InstalledModel, Place
from bundler.receipt_folder import read_receipts
from bundler.relative import RelativePath


@dataclass(frozen=True, slots=True)
class InstalledFault:
    """Something that is not as it was installed. `problem`: missing, changed or unreadable."""

    path: Path
    problem: str
    models: tuple[str, ...]
    """The specs of those that it stands for."""
    mend: str
    """What puts it right."""


@dataclass(frozen=True, slots=True)
class InstalledVerification:
    """What verifying found: `checked` files of `size` bytes in all are right, `faults` are not."""

    checked: int
    size: int
    faults: tuple[InstalledFault, ...]
    foreign: tuple[Path, ...]
    """Files in folders that bundler filled that are not its own."""
    notes: tuple[str, ...]
    """What was changed on purpose, it seems, and is no fault."""
    needed: Manifest | None = None
    """That of a bundle which would bring what is missing or changed, if anything is."""

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for programs."""
        return {
            "checked": self.checked,
            "size": self.size,
            "faults": [
                {
                    "path": str(fault.path),
                    "problem": fault.problem,
                    "models": list(fault.models),
                    "mend": fault.mend,
                }
                for fault in self.faults
            ],
            "foreign": [str(path) for path in self.foreign],
            "notes": list(self.notes),
        }


def verify_installed(
    roots: Roots | None = None, *, jobs: int | None = None, progress: Progress | None = None
) -> InstalledVerification:
    """Read all that receipts below `roots` say is installed, and compare it with its digests.

    `roots`: by default those that the libraries use here. `jobs`: threads, by default one for each
    processor, at most 8. Raises UnavailableError if nothing is installed, TargetError if the
    receipts cannot be read.
    """
    roots = roots or find_roots()
    models = [(r.bundle, model) for r in read_receipts(roots.hf_home) for model in r.models]
    if not models:
        raise UnavailableError(
            f"bundler has installed nothing below {roots.hf_home}: name another place with --root, "
            "or a bundle to verify"
        )
    audit = _Audit(roots, models)
    audit.check_files(jobs, progress or Silent())
    audit.check_links()
    audit.check_texts()
    return audit.result()


class _Audit:
    """One verification under way: what is claimed of which place, and what was found there."""

    def __init__(self, roots: Roots, models: list[tuple[Digest, InstalledModel]]) -> None:
        self._roots = roots
        self._models = [model for _, model in models]
        self._owners: dict[Place, list[tuple[Digest, InstalledModel]]] = defaultdict(list)
        self._files: dict[Place, InstalledFile] = {}
        self._links: dict[Place, dict[str | None, None]] = defaultdict(dict)
        self._texts: dict[Place, dict[str | None, None]] = defaultdict(dict)
        for bundle, model in models:
            for place in model.places:
                self._owners[place].append((bundle, model))
            self._files |= {file.place: file for file in model.files}
            for pointers, claims in ((model.links, self._links), (model.texts, self._texts)):
                for pointer in pointers:
                    claims[pointer.place][pointer.text] = None
        self._contents: dict[Place, set[str]] = defaultdict(set)
        """What was installed in each snapshot of a hub cache."""
        for root, path in (*self._links, *self._files):
            if path.parts[1:2] == ("snapshots",):
                self._contents[root, path.start(3)].add("/".join(path.parts[3:]))
        self._problems: dict[Place, str] = {}
        self._right: list[Place] = []
        self._notes: list[str] = []

    def _path(self, place: Place) -> Path:
        return self._roots.kept_at(place[0]) / place[1]

    def check_files(self, jobs: int | None, progress: Progress) -> None:
        """Read every file once, however many names it has."""
        same: dict[tuple[int, int], list[Place]] = defaultdict(list)
        total = 0
        for place, file in self._files.items():
            try:
                state = self._path(place).stat()
            except OSError as error:
                self._fault(place, _problem(error))
                continue
            if not stat.S_ISREG(state.st_mode) or state.st_size != file.blob.size:
                self._fault(place, "changed")
                continue
            names = same[state.st_dev, state.st_ino]
            total += 0 if names else state.st_size
            names.append(place)
        with progress.start("verifying", total) as meter:
            each_in_threads(same.values(), self._check_file, jobs, meter.add)

    def _check_file(self, places: list[Place], count: Count) -> None:
        try:
            with open(self._path(places[0]), "rb", buffering=0) as content:
                digest = digest_of(content, count)
        except OSError as error:
            for place in places:
                self._fault(place, _problem(error))
            return
        for place in places:
            if digest == self._files[place].blob.digest:
                self._right.append(place)
            else:
                self._fault(place, "changed")

    def _fault(self, place: Place, problem: str) -> None:
        file = self._files.get(place)
        owners = [model for _, model in self._owners[place]]
        if problem == "changed" and file and any(model.may_be_edited(file) for model in owners):
            self._notes.append(f"{self._path(place)} was edited")
        else:
            self._problems[place] = problem

    def check_links(self) -> None:
        """See that links lead where they did, or to the same content."""
        for place, texts in self._links.items():
            with self._unreadable_noted(place):
                self._check_link(place, texts)

    def _check_link(self, place: Place, texts: Collection[str | None]) -> None:
        path = self._path(place)
        said = os.readlink(path) if path.is_symlink() else None
        if not path.exists():
            # What a link leads to is told once, by its own name if it has one.
            target = _target(place, said)
            if said not in texts or target not in self._problems:
                self._problems[place] = "missing"
        elif said not in texts:
            files = [self._files.get(_target(place, text)) for text in texts]
            blobs = [file.blob for file in files if file is not None]
            if not blobs and path.is_dir():
                self._notes.append(f"{path} leads elsewhere now")
            elif not (path.is_file() and any(holds(path, blob) for blob in blobs)):
                self._problems[place] = "changed"

    def check_texts(self) -> None:
        """See that refs lead to snapshots, and that listings name what is there."""
        for place, texts in self._texts.items():
            with self._unreadable_noted(place):
                self._check_text(place, texts)

    def _check_text(self, place: Place, texts: Collection[str | None]) -> None:
        root, path = place
        said = self._path(place).read_text("utf-8")
        snapshots = RelativePath(path.parts[0]) / "snapshots"
        if path.parts[1:2] == ("trees",):
            if not self._lists((root, snapshots / path.stem), said):
                self._problems[place] = "changed"
        elif None not in texts and said not in texts:
            if said in names_in(self._path((root, snapshots))):
                self._notes.append(f"{self._path(place)} says {said[:12]} now")
            else:
                self._problems[place] = "changed"

    @contextmanager
    def _unreadable_noted(self, place: Place) -> Iterator[None]:
        try:
            yield
        except (OSError, UnicodeDecodeError) as error:
            self._problems[place] = _problem(error)

    def _lists(self, folder: Place, text: str) -> bool:
        """Whether a listing names all that was installed in `folder`, and nothing that is gone."""
        entries = listed(text)
        ours = self._contents[folder]  # Whether these are there was looked at already.
        return (
            entries is not None
            and ours <= entries.keys()
            and all((self._path(folder) / path).exists() for path in entries.keys() - ours)
        )

    def result(self) -> InstalledVerification:
        """What was found."""
        faults = tuple(
            self._told(place, problem) for place, problem in sorted(self._problems.items())
        )
        size = sum(self._files[place].blob.size for place in self._right)
        folders = {place for model in self._models for place in filled_folders(model)}
        foreign = {
            self._path(place)
            for folder in folders
            for place in places_below(folder, self._path(folder))
            if place not in self._owners
        }
        return InstalledVerification(
            checked=len(self._right),
            size=size,
            faults=faults,
            foreign=tuple(sorted(foreign)),
            notes=tuple(self._notes),
            needed=needed(self._models, self._problems.keys(), {*self._right}),
        )

    def _told(self, place: Place, problem: str) -> InstalledFault:
        owners = self._owners[place]
        specs = dict.fromkeys(model.spec for _, model in owners)
        bundle, model = owners[0]
        command = f"bundler unpack BUNDLE --only {quote(model.spec)}"
        if place[0].startswith("/"):
            option = "--insightface-root" if model.layout == "insightface" else "--checkpoints"
            command += f" {option} {quote(place[0])}"
        path = self._path(place)
        in_the_way = path if problem != "missing" else None
        if model.layout == "torch-hub" and place in self._files:
            # To a folder of code that is there no file is added.
            in_the_way = self._path((place[0], place[1].start(2)))
        command += f" with the bundle {bundle}"
        command += ", to the same place" if self._roots.named else ""
        mend = f"rm -r {quote(str(in_the_way))}, then {command}" if in_the_way else command
        return InstalledFault(path, problem, tuple(specs), mend)


def _problem(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "changed"
    gone = (FileNotFoundError, NotADirectoryError)
    return "missing" if isinstance(error, gone) else "unreadable"


def _target(place: Place, text: str | None) -> Place:
    """The place that a link at `place` leads to."""
    root, path = place
    return root, path.led_to(text or ".")
