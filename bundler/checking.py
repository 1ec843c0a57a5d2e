"""What programs will look for, against what is on this machine: would it load?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from shlex import quote
from typing import Any

from bundler.checks import Fault, Found
from bundler.checks.face_pack import find_pack
from bundler.checks.plain_path import find_plain
from bundler.checks.prepared_dataset import find_prepared
from bundler.checks.repository import find_repository
from bundler.checks.shell import shell_faults
from bundler.checks.torch_files import find_checkpoint, find_code
from bundler.closure import closure
from bundler.content import Promise, differs
from bundler.environment import Roots, find_roots
from bundler.errors import RequestError
from bundler.frames import default_jobs
from bundler.lookups import Checkpoint, FacePack, HubCode, Lookup, PlainPath, Repository, lookups
from bundler.progress import Progress, Silent
from bundler.remote import SMALL
from bundler.request import Wanted
from bundler.selection import Selection
from bundler.spec import Spec


@dataclass(frozen=True, slots=True)
class CheckedModel:
    """What is here for one spec: `size` bytes of files that are `found`.

    `needed_by`: the model that needs it, if the user did not say.
    """

    spec: str
    found: tuple[Found, ...]
    size: int
    needed_by: str = ""

    @property
    def faults(self) -> list[Fault]:
        """What keeps it from loading."""
        return [fault for found in self.found for fault in found.faults]

    @property
    def notes(self) -> list[str]:
        """What there is to say beside that, a sentence each."""
        return [note for found in self.found for note in found.notes]

    @property
    def commit_hash(self) -> str | None:
        """The commit that would be loaded, if there is one."""
        return next((found.commit_hash for found in self.found if found.commit_hash), None)

    @property
    def files(self) -> list[Path]:
        """Its files that are here."""
        return [path for found in self.found for path in found.files.values()]


@dataclass(frozen=True, slots=True)
class Check:
    """The answer of `check`: `models` in the order of asking, each with what it needs after it."""

    models: tuple[CheckedModel, ...]
    roots: Roots
    shell: tuple[Fault, ...]
    """What is wrong with the variables of this shell, if they were looked at."""

    @property
    def faults(self) -> list[Fault]:
        """All that keeps something from loading; none if all would load."""
        return [*self.shell, *chain.from_iterable(model.faults for model in self.models)]

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for programs."""
        return {
            "loads": not self.faults,
            "models": [
                {
                    "spec": model.spec,
                    "needed_by": model.needed_by or None,
                    "commit_hash": model.commit_hash,
                    "files": len(model.files),
                    "size": model.size,
                    "faults": [*map(_fault_json, model.faults)],
                    "notes": model.notes,
                }
                for model in self.models
            ],
            "shell": [*map(_fault_json, self.shell)],
        }


def check(
    models: Sequence[str | Wanted],
    *,
    roots: Roots | None = None,
    digests: bool = False,
    folder: Path = Path(),
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Check:
    """Look whether every model of `models`, specs as in `pack`, is here, complete and intact.

    Reads names, sizes and small files alone, of caches that anybody may have filled; with `digests`
    also every byte of files whose hash is known, in `jobs` threads. `folder` is where programs are
    started: what stands there may be taken for the model. Without `roots` these are the
    caches that programs started here would read, and the variables of this process are looked at
    too. What is wrong is in the result. Raises RequestError for what is no spec.
    """
    if not models:
        raise RequestError("no models named: bundler check ORG/NAME …, or --from REQUEST.toml")
    places = roots or find_roots()
    wanted = [Wanted(model) if isinstance(model, str) else model for model in models]
    checked = list(_checked(wanted, places, folder))
    if digests:
        _compare(checked, jobs, progress or Silent())
    shell: list[Fault] = []
    repositories = [
        lookup for model in checked for lookup in lookups(Spec.parse(model.spec))
        if isinstance(lookup, Repository)
    ]  # fmt: skip
    if roots is None and repositories:
        datasets = any(lookup.kind == "dataset" for lookup in repositories)
        shell = shell_faults(os.environ, places, datasets=datasets)
    return Check(tuple(checked), places, tuple(shell))


def _checked(wanted: Sequence[Wanted], roots: Roots, folder: Path) -> Iterator[CheckedModel]:
    """Each model, followed by what it needs from elsewhere, which its own files tell."""
    todo = [(item.spec, item.selection or Selection(), "", False) for item in reversed(wanted)]
    seen: set[tuple[str, bool]] = set()
    while todo:
        text, selection, needed_by, code_only = todo.pop()
        spec = Spec.parse(text)
        if (str(spec), False) in seen or (str(spec), code_only) in seen:
            continue
        seen.add((str(spec), code_only))
        some_only = bool(selection.include)
        found = [_found(lookup, text, roots, code_only, some_only) for lookup in lookups(spec)]
        for lookup, one in zip(lookups(spec), found, strict=True):
            _check_folder_in_the_way(lookup, one, folder, roots)
        size = sum(path.stat().st_size for one in found for path in one.files.values())
        yield CheckedModel(text, tuple(found), size, needed_by)
        for one in found:
            if not one.faults:
                for need in _needs(one):
                    todo.append((need[0], Selection(), one.names[0], need[1]))


def _found(lookup: Lookup, spec: str, roots: Roots, code_only: bool, some_only: bool) -> Found:
    if isinstance(lookup, Checkpoint):
        return find_checkpoint(lookup, spec, roots)
    if isinstance(lookup, HubCode):
        return find_code(lookup, spec, roots)
    if isinstance(lookup, FacePack):
        return find_pack(lookup, spec, roots)
    if isinstance(lookup, PlainPath):
        return find_plain(lookup, spec, roots)
    found = find_repository(lookup, spec, roots, code_only=code_only, some_only=some_only)
    if lookup.kind == "dataset":
        return _dataset(lookup, found, roots)
    return found


def _dataset(wanted: Repository, files: Found, roots: Roots) -> Found:
    """The prepared form if there is one: `load_dataset` reads nothing else without a network."""
    prepared = find_prepared(wanted, files.spec, roots)
    if prepared.files or prepared.faults:
        return prepared
    if not files.faults:
        files.missing(
            f"{wanted.name}: its files are here, but not the form that "
            f'load_dataset("{wanted.name}") reads without a network',
            "pack it again where bundler[datasets] is installed, or let the program say "
            f'load_dataset(snapshot_download("{wanted.name}", repo_type="dataset"))',
        )
    return files


def _check_folder_in_the_way(lookup: Lookup, found: Found, folder: Path, roots: Roots) -> None:
    """transformers and insightface take a folder of that name here before what they keep."""
    is_model = isinstance(lookup, Repository) and lookup.kind == "model" and not lookup.library
    if not (isinstance(lookup, FacePack) or is_model) or not (folder / found.names[0]).is_dir():
        return
    there = find_plain(PlainPath(str(folder / found.names[0])), found.spec, roots)
    if isinstance(lookup, FacePack) or there.faults:
        found.hindered(
            f"./{found.names[0]} is here, which programs take instead of what is unpacked",
            "start them in another folder, or move it away",
        )
    else:
        found.notes.append(f"./{found.names[0]} is here, and programs take it instead")


def _needs(found: Found) -> Iterator[tuple[str, bool]]:
    """The specs of what a model needs from elsewhere, and whether that is code alone."""

    def content(path: str) -> bytes:
        with open(found.files[path], "rb") as file:
            return file.read(SMALL)

    sizes: Mapping[str, int] = {path: place.stat().st_size for path, place in found.files.items()}
    for need in closure(found.names, sizes, content).needs:
        yield need.spec, need.code_only


def _compare(checked: Sequence[CheckedModel], jobs: int | None, progress: Progress) -> None:
    """Compare all files whose hash is known, each content once, and note those that differ."""
    work: dict[tuple[str, Promise], list[tuple[Found, str]]] = {}
    for found in chain.from_iterable(model.found for model in checked):
        for inner, promise in found.promises.items():
            place = os.path.realpath(found.files[inner])
            work.setdefault((place, promise), []).append((found, inner))
        unknown = len(found.files) - len(found.promises)
        if unknown:
            found.notes.append(
                f"{found.names[0]}: nothing here tells what {unknown} of its "
                f"{len(found.files)} files should be, so they were not compared"
            )
    total = sum(os.stat(place).st_size for place, _ in work)
    with progress.start("comparing", total) as meter:

        def one(item: tuple[str, Promise]) -> None:
            place, promise = item
            try:
                wrong = differs(Path(place), promise, meter.add)
            except OSError as error:
                for found, inner in work[item]:
                    found.damaged(
                        f"{inner} of {found.names[0]} cannot be read ({error.strerror})",
                        "unpack its bundle again",
                    )
                return
            for found, inner in work[item] if wrong else ():
                found.damaged(
                    f"{inner} of {found.names[0]} holds other bytes than it should",
                    f"rm {quote(place)}, and unpack its bundle again",
                )

        with ThreadPoolExecutor(jobs or default_jobs(), "compare") as pool:
            list(pool.map(one, work))


def _fault_json(fault: Fault) -> dict[str, Any]:
    return {"text": fault.text, "cure": fault.cure, "exit_code": fault.kind.exit_code}
