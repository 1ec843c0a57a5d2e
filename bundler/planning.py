"""Specs -> pinned snapshots with the files to carry: metadata alone, nothing is written."""

from __future__ import annotations

import io
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from bundler.caches import Caches
from bundler.catalogues import catalogue
from bundler.closure import Need, closure
from bundler.digest import Blob, Stream
from bundler.download import PARALLEL, missing_size, small_content
from bundler.errors import BundlerError, Faults, RequestError, SetupError, UnavailableError
from bundler.names import relative_path, unportable
from bundler.origin import Key, Origin
from bundler.prepared import can_prepare
from bundler.remote import (
    ModelFile,
    NoRepositoryError,
    PathInside,
    RemoteSnapshot,
    Repositories,
)
from bundler.request import Wanted
from bundler.selection import Selection, select
from bundler.sources import Source, resolve
from bundler.spec import Spec
from bundler.store import BlobStore
from bundler.web import NoPartsError, Web

_CODE = Selection(include=("*.py", "*.json"))
"""What is carried of a repository that only lends its code."""
_LONG = 64 << 20
"""Bytes of a download that is worth a question before."""
_NAMED = 3
"""Files that a note names."""
_LONGEST_CHAIN = 8
"""How often what is needed may need something else."""


@dataclass(frozen=True, slots=True)
class PackPlan:
    """What a pack will bring: pinned snapshots with the files chosen. Sizes in bytes."""

    snapshots: tuple[RemoteSnapshot, ...]
    missing_size: int
    """Of what is still to be downloaded."""
    remarks: tuple[str, ...] = ()
    """What there is to say of models that are not among them, one sentence each."""
    there: Mapping[Key, Blob] = field(default_factory=dict)
    """Content that is on the target already and stays out of the bundle."""

    @classmethod
    def of(
        cls,
        snapshots: Sequence[RemoteSnapshot],
        store: BlobStore,
        remarks: Sequence[str] = (),
        there: Mapping[Key, Blob] | None = None,
    ) -> PackPlan:
        """The plan for `snapshots`, of which `store` may have some content."""
        there = there or {}
        files = (file for _, file in contents(snapshots) if file.key not in there)
        size = sum(missing_size(file, store) for file in files)
        return cls(tuple(snapshots), size, tuple(remarks), there)

    @property
    def size(self) -> int:
        """Of everything in the bundle before compression, as far as upstream tells sizes."""
        files = (file for _, file in contents(self.snapshots))
        return sum(file.size or 0 for file in files if file.key not in self.there)

    @property
    def saved_size(self) -> int:
        """Of what stays out of the bundle, as far as it is known before all is downloaded."""
        return sum({blob.digest: blob.size for blob in self.there.values()}.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know before carrying it, one sentence each."""
        notes = [note for snapshot in self.snapshots for note in snapshot.notes]
        return tuple(dict.fromkeys([*notes, *self.remarks]))

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for programs."""
        return {
            "models": [
                {
                    "source": snapshot.source,
                    "name": snapshot.name,
                    "aliases": list(snapshot.aliases),
                    "specs": list(snapshot.specs),
                    "needs": list(snapshot.needs),
                    "revision": snapshot.revision,
                    "commit_hash": snapshot.commit_hash,
                    "layout": snapshot.layout,
                    "license": snapshot.license,
                    "files": [{"path": f.path, "size": f.size} for f in snapshot.files],
                    "omitted": [
                        {"path": item.path, "size": item.size, "reason": item.reason}
                        for item in snapshot.omitted
                    ],
                }
                for snapshot in self.snapshots
            ],
            "notes": list(self.notes),
            "download_size": self.missing_size,
            "size": self.size,
            "saved_size": self.saved_size,
        }


@dataclass(frozen=True, slots=True)
class _Item:
    """One spec to resolve. `needed_by`: the model that needs it, if the user did not name it."""

    spec: str
    selection: Selection
    needed_by: str = ""


class Planner:
    """Where specs are resolved: a hub, the rest of the web, this machine, the kinds of model."""

    def __init__(
        self,
        hub: Repositories,
        web: Web,
        caches: Caches,
        sources: Sequence[Source],
        store: BlobStore,
    ) -> None:
        self._hub = hub
        self._caches = caches
        self._web = web
        self._sources = sources
        self._store = store

    def plan(
        self,
        wanted: Sequence[Wanted],
        selection: Selection,
        closed: bool,
        everything: bool = False,
    ) -> PackPlan:
        """Resolve everything `wanted`, and if `closed` what that needs from elsewhere.

        `selection` is for those that bring none of their own. `everything`: what the caches of this
        machine have as well, as it is. Raises Faults with every fault.
        """
        if not wanted and not everything:
            raise RequestError("no models named: bundler pack --models ORG/NAME … -o FILE")
        todo = [_Item(w.spec, w.selection or selection) for w in dict.fromkeys(wanted)]
        # Each spec once, as far as it is needed; what the user named is chosen by the user.
        known = {_key(item.spec): False for item in todo}
        snapshots, remarks = self._kept(selection) if everything else ([], [])
        for _ in range(_LONGEST_CHAIN):
            resolved = self._resolved(todo, closed)
            snapshots += [snapshot for snapshot, _ in resolved]
            todo = []
            for snapshot, needs in resolved:
                for need in needs:
                    key = _key(need.spec)
                    if known.get(key, True) and (key not in known or not need.code_only):
                        known[key] = need.code_only
                        chosen = _CODE if need.code_only else Selection()
                        todo.append(_Item(need.spec, chosen, needed_by=snapshot.name))
            if not todo:
                break
        else:
            raise RequestError(
                f"{todo[0].needed_by} needs {todo[0].spec}, at the end of a chain of more than "
                f"{_LONGEST_CHAIN}: pack it by name, and all with --no-closure"
            )
        _check_names(snapshots)
        return PackPlan.of(_one_name_each(snapshots), self._store, remarks)

    def resolve(self, spec: str) -> list[RemoteSnapshot]:
        """What one spec stands for, all files of it. Raises as `Source.resolve` does."""
        found = resolve(Spec.parse(spec), self._hub, self._web, self._sources)
        return [self._caches.with_copies(snapshot) for snapshot in found]

    def _kept(self, selection: Selection) -> tuple[list[RemoteSnapshot], list[str]]:
        """All that the caches have of what is selected, and what there is to say of the rest."""
        found, remarks = self._caches.everything()
        snapshots = []
        for snapshot in found:
            try:
                # Of a model that was asked for its configuration alone, that is what is here.
                chosen = select(snapshot, selection, has_weights=False)
                snapshots.append(_with_notes(_checked(chosen)))
            except RequestError as error:
                remarks.append(f"left behind: {error}")
        if not snapshots:
            raise UnavailableError("\n".join(["nothing to pack is on this machine", *remarks]))
        return snapshots, remarks

    def check_reach(self, plan: PackPlan) -> None:
        """Before a long download, find out whether content is to be had where names are.

        The Hub tells names and sizes itself and leads elsewhere for large files, and so does a
        mirror: often to hosts that only the original can reach. Raises UnavailableError.
        """
        if plan.missing_size < _LONG:
            return
        for _, file in sorted(contents(plan.snapshots), key=lambda item: item[1].size or 0):
            if file.key in plan.there:
                continue
            if file.digest and file.origin.part and missing_size(file, self._store) == file.size:
                with suppress(NoPartsError):
                    self._web.patience.ask(partial(file.origin.part, 0, 1)).close()
                return

    def _resolved(
        self, items: Sequence[_Item], closed: bool
    ) -> list[tuple[RemoteSnapshot, tuple[Need, ...]]]:
        """Every snapshot of `items`, and what each needs if `closed`. Raises Faults with all."""

        def one(item: _Item) -> list[tuple[RemoteSnapshot, tuple[Need, ...]]] | BundlerError:
            try:
                snapshots = [
                    # What is needed may be code alone.
                    _checked(select(s, item.selection, has_weights=not item.needed_by))
                    for s in self.resolve(item.spec)
                ]
                if item.selection is _CODE:
                    snapshots = [*map(_of_code, snapshots)]
                noted = map(_with_notes, snapshots)
                return [self._with_needs(s) if closed else (s, ()) for s in noted]
            except SetupError:
                raise
            except BundlerError as error:
                if not item.needed_by:
                    misnamed = isinstance(error, (RequestError, NoRepositoryError))
                    hint = _hint(item.spec) if misnamed else ""
                    return type(error)(f"{error}; {hint}") if hint else error
                advice = "--no-closure packs without what is needed"
                return UnavailableError(f"{item.needed_by} needs {item.spec}: {error} ({advice})")

        pool = ThreadPoolExecutor(PARALLEL, "resolve")
        try:
            results = list(pool.map(one, items))
        except BaseException:
            self._web.patience.stop.set()  # A thread may wait for a server in trouble.
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        faults = [result for result in results if isinstance(result, BundlerError)]
        if faults:
            raise Faults(faults)
        return [pair for result in results if isinstance(result, list) for pair in result]

    def _with_needs(self, snapshot: RemoteSnapshot) -> tuple[RemoteSnapshot, tuple[Need, ...]]:
        """`snapshot` and what it needs from elsewhere, which its configuration files tell."""
        if snapshot.kind != "model" and snapshot.layout != "flat":
            return snapshot, ()
        read: dict[str, bytes] = {}

        files = {file.path: file for file in snapshot.files}

        def content(path: str) -> bytes:
            item = ModelFile(snapshot.name, files[path])
            read[path] = small_content(item, self._web.patience, self._store)
            return read[path]

        names = (snapshot.name, *snapshot.aliases)
        found = closure(names, {path: file.size for path, file in files.items()}, content)
        snapshot = replace(
            snapshot,
            # What was read need not be asked for again.
            files=tuple(
                replace(f, origin=_Read(read[f.path], f.origin))
                if f.path in read and not f.is_here
                else f
                for f in snapshot.files
            ),
            needs=tuple(need.spec for need in found.needs),
            notes=(*snapshot.notes, *found.notes),
        )
        return snapshot, found.needs


def _hint(spec: str) -> str:
    """What somebody may have meant who named a model of the Hub that is not there."""
    if os.path.exists(spec):
        return f"for what is here under that name, say file:{spec}"
    if spec in catalogue("torchvision")["models"]:
        return f"for torchvision's or timm's model, say torchvision:{spec} or timm:{spec}"
    if spec.removeprefix("timm/").partition(".")[0] in catalogue("timm")["architectures"]:
        return f"for timm's model, say timm:{spec.removeprefix('timm/')}"
    if re.fullmatch(r"[\w.-]+", spec):
        return f"for another kind, say sentence-transformers:{spec} or dataset:{spec}"
    revised = re.fullmatch(r"(?!sentence-transformers:)([\w.]+[/-][\w./-]+):([\w.-]+)", spec)
    return f"for a revision, say {revised[1]}@{revised[2]}" if revised else ""


def _key(spec: str) -> str:
    """The same for all ways to write a spec."""
    try:
        return str(Spec.parse(spec))
    except RequestError:
        return spec  # Told when it is resolved.


def _of_code(snapshot: RemoteSnapshot) -> RemoteSnapshot:
    left_out = tuple(replace(o, reason="only its code is needed") for o in snapshot.omitted)
    return replace(snapshot, omitted=left_out)


def contents(snapshots: Sequence[RemoteSnapshot]) -> Iterator[ModelFile]:
    """Each content once."""
    seen: set[Key] = set()
    for snapshot in snapshots:
        for file in snapshot.files:
            key = file.key
            if key not in seen:
                seen.add(key)
                yield ModelFile(snapshot.name, file)


@dataclass(frozen=True, slots=True, eq=False)
class _Read(Origin):
    """What was read already, from another, which tells all else."""

    content: bytes
    origin: Origin

    @property
    def identity(self) -> str:
        return self.origin.identity

    @property
    def resumes(self) -> bool:
        return self.origin.resumes

    @property
    def part(self) -> Callable[[int, int], Stream] | None:
        return self.origin.part

    def open(self, start: int, /) -> Stream:
        return io.BytesIO(self.content[start:])

    def elsewhere(self) -> None:
        self.origin.elsewhere()


def _checked(snapshot: RemoteSnapshot) -> RemoteSnapshot:
    """The same snapshot, if all of its chosen files have names that a bundle can carry."""
    paths = [file.path for file in snapshot.files]
    if len(set(paths)) != len(paths):
        raise UnavailableError(f"{snapshot.name} lists a file twice: is that a hub?")
    for file in snapshot.files:
        try:
            relative_path(file.path)
        except ValueError as error:
            raise RequestError(
                f"{snapshot.name} has a file that a bundle cannot carry ({error}): "
                "leave it out with --exclude"
            ) from None
    return snapshot


def _with_notes(snapshot: RemoteSnapshot) -> RemoteSnapshot:
    return _with_note_on_names(_with_note_on_datasets(snapshot))


def _with_note_on_names(snapshot: RemoteSnapshot) -> RemoteSnapshot:
    # Of an archive, the names of the files in it are not known before it is there.
    paths = [] if snapshot.inside else unportable(file.path for file in snapshot.files)
    if not paths:
        return snapshot
    more = f" and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else ""
    note = (
        f"{snapshot.name} has files that Windows and exFAT cannot hold: "
        f"{', '.join(paths[:_NAMED])}{more}; leave them out with --exclude if that is where it goes"
    )
    return replace(snapshot, notes=(*snapshot.notes, note))


def _with_note_on_datasets(snapshot: RemoteSnapshot) -> RemoteSnapshot:
    if snapshot.layout != "hf-cache" or snapshot.kind != "dataset":
        return snapshot
    call = f'load_dataset("{snapshot.name}")'
    if can_prepare():
        note = f"{snapshot.name}: its files, and its prepared form, which {call} reads offline"
    else:
        note = (
            f"{snapshot.name}: its files alone; offline, {call} does not find them, only "
            f'load_dataset(snapshot_download("{snapshot.name}", repo_type="dataset")) does. '
            "Install bundler[datasets] here to bring the form that the first one reads"
        )
    return replace(snapshot, notes=(*snapshot.notes, note))


def _one_name_each(snapshots: Sequence[RemoteSnapshot]) -> tuple[RemoteSnapshot, ...]:
    """One main name for each repository, though it was asked for under several; revisions once."""
    names: dict[tuple[str, str], set[str]] = defaultdict(set)
    for snapshot in snapshots:
        names[snapshot.source, _canonical(snapshot)] |= {snapshot.name, *snapshot.aliases}
    unique: dict[tuple[str, str, str | None], RemoteSnapshot] = {}
    for snapshot in snapshots:
        # The name that is not the canonical one comes first, whatever the order of asking.
        canonical = _canonical(snapshot)
        known = names[snapshot.source, canonical]
        name, *aliases = sorted(known, key=lambda name: (name == canonical, name))
        named = replace(snapshot, name=name, aliases=tuple(aliases))
        key = (named.source, name, named.revision)
        unique[key] = _united(unique[key], named) if key in unique else named
    return tuple(unique.values())


def _united(one: RemoteSnapshot, other: RemoteSnapshot) -> RemoteSnapshot:
    """One snapshot asked for twice, with the files of both. Raises UnavailableError."""
    if one.commit_hash != other.commit_hash:
        raise UnavailableError(f"{one.name} has just changed upstream: run the same command again")
    files = {file.path: file for file in (*one.files, *other.files)}
    omitted = {item.path: item for item in (*one.omitted, *other.omitted)}
    return replace(
        other,
        files=tuple(files[path] for path in sorted(files)),
        omitted=tuple(item for path, item in omitted.items() if path not in files),
        specs=tuple(dict.fromkeys(one.specs + other.specs)),
        needs=tuple(dict.fromkeys(one.needs + other.needs)),
        inside=one.inside and other.inside and partial(_either, one.inside, other.inside),
        notes=tuple(dict.fromkeys(one.notes + other.notes)),
    )


def _either(one: PathInside, other: PathInside, member: str) -> str | None:
    return one(member) or other(member)


def _canonical(snapshot: RemoteSnapshot) -> str:
    return snapshot.aliases[-1] if snapshot.aliases else snapshot.name


def _check_names(snapshots: Sequence[RemoteSnapshot]) -> None:
    """Raise RequestError if two things would have to stand in one place on the target."""
    places: dict[tuple[str, str], RemoteSnapshot] = {}
    for snapshot in snapshots:
        if snapshot.layout == "flat":
            place = snapshot.name
        elif snapshot.layout == "torch-checkpoints":
            place = PurePosixPath(snapshot.files[0].path).name
        else:
            continue
        other = places.setdefault((snapshot.layout, place), snapshot)
        if {file.key for file in other.files}.isdisjoint(file.key for file in snapshot.files):
            raise RequestError(
                f"{other.name} and {snapshot.name} are both called {place} where they go: "
                "pack them into two bundles, and unpack those to different places"
            )
