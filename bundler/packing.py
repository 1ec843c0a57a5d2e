"""Specs -> snapshots -> one bundle."""

from __future__ import annotations

import os
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from bundler.archive import write_bundle
from bundler.code import code_of, refuse_code
from bundler.digest import Blob, Digest
from bundler.download import Cancelled, Mirror, Web, fetch, found
from bundler.errors import (
    BundlerError,
    DamagedError,
    Faults,
    FormatError,
    RequestError,
    TargetError,
    UnavailableError,
    amount,
)
from bundler.frames import DEFAULT_LEVEL
from bundler.hub import Hub
from bundler.layouts import layout_of
from bundler.layouts.flat import flattened
from bundler.layouts.placement import Placement
from bundler.locked import PREPARED, absent, locked_plan, pinned
from bundler.manifest import Code, FileEntry, Manifest, Snapshot
from bundler.names import plain_text, relative_path
from bundler.planning import PARALLEL, PackPlan, Planner, contents, missing_size
from bundler.prepared import can_prepare, prepare
from bundler.progress import Progress, Silent
from bundler.remote import RemoteFile, RemoteSnapshot
from bundler.request import Wanted
from bundler.selection import Selection
from bundler.sources import SOURCES, Source
from bundler.store import BlobStore
from bundler.survey import without_contradictions
from bundler.whole_file import told, whole_file
from bundler.zip_archive import from_zip


@dataclass(frozen=True, slots=True)
class Packed:
    """A finished bundle. `size` in bytes of the file; `digest` is the bundle's id."""

    path: Path | None
    size: int
    digest: Digest
    manifest: Manifest
    notes: tuple[str, ...] = ()
    """What did not go as planned, and is no error; one sentence each."""

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for programs."""
        return {
            "path": None if self.path is None else str(self.path),
            "size": self.size,
            "bundle": str(self.digest),
            "notes": list(self.notes),
        }


def default_store() -> Path:
    """The folder that keeps downloads: `$XDG_CACHE_HOME/bundler`, else `~/.cache/bundler`."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.abspath(os.path.expanduser(caches))) / "bundler"


def _store(folder: Path | str | None) -> BlobStore:
    return BlobStore(Path(folder) if folder else default_store())


def plan_pack(
    specs: Sequence[str | Wanted],
    *,
    selection: Selection = Selection(),
    endpoint: str | None = None,
    mirrors: Sequence[str] = (),
    store: Path | str | None = None,
    closed: bool = True,
    locked: Manifest | None = None,
    sources: Sequence[Source] = SOURCES,
) -> PackPlan:
    """Resolve `specs` from metadata alone: nothing is downloaded, nothing is written.

    `endpoint`: the Hub to ask, by default that of `HF_ENDPOINT`, else the public one. `mirrors`:
    `FROM=TO`, addresses and where to look for them first. `store`: the folder that keeps downloads
    (`default_store`). `closed`: bring what the models need from other repositories too. `locked`:
    instead of `specs`, plan for exactly what this manifest has.

    Raises Faults with every RequestError and UnavailableError of the request.
    """
    folder = _store(store)
    with _planner(endpoint, mirrors, sources, folder) as planner:
        return _plan(planner, specs, selection, closed, locked, folder)


def pack(
    specs: Sequence[str | Wanted],
    output: Path | str | BinaryIO,
    *,
    selection: Selection = Selection(),
    endpoint: str | None = None,
    mirrors: Sequence[str] = (),
    store: Path | str | None = None,
    closed: bool = True,
    locked: Manifest | None = None,
    code: bool = True,
    level: int = DEFAULT_LEVEL,
    jobs: int | None = None,
    sources: Sequence[Source] = SOURCES,
    on_plan: Callable[[PackPlan], None] | None = None,
    progress: Progress | None = None,
) -> Packed:
    """Download the models that `specs` name and write them into one bundle at `output`.

    `output`: a path, replaced only by a whole bundle, or a binary stream. `code`: False refuses
    models that hold some. `level`: of zstd, 1 to 19. `jobs`: threads that compress. `on_plan` is
    called once everything is resolved, before anything is downloaded. The rest as in `plan_pack`.

    Raises Faults or one of RequestError, UnavailableError, DamagedError (upstream sends other bytes
    than it promises), TrustError (`code`) and TargetError (output or store). What was downloaded is
    kept, and running again goes on from there.
    """
    progress = progress or Silent()
    if isinstance(output, (str, Path)):
        _check_output(Path(output))
    folder = _store(store)
    with _planner(endpoint, mirrors, sources, folder) as planner:
        plan = _plan(planner, specs, selection, closed, locked, folder)
        if not code:
            refuse_code(plan.snapshots)
        if on_plan is not None:
            on_plan(plan)
        with _store(store) as blobs:
            manifest, notes = _manifest(plan, locked, blobs, progress)
            if not code:
                refuse_code(manifest.snapshots, lambda s: code_of(s, blobs.open))
            return replace(_write(manifest, blobs, output, level, jobs, progress), notes=notes)


@contextmanager
def _planner(
    endpoint: str | None, mirrors: Sequence[str], sources: Sequence[Source], store: BlobStore
) -> Iterator[Planner]:
    with closing(Web([Mirror.parse(text) for text in mirrors])) as web:
        yield Planner(Hub(web, endpoint), web, sources, store)


def _plan(
    planner: Planner,
    specs: Sequence[str | Wanted],
    selection: Selection,
    closed: bool,
    locked: Manifest | None,
    store: BlobStore,
) -> PackPlan:
    if locked is not None:
        if specs or selection != Selection():
            raise RequestError(
                "a locked manifest says what to pack: name no models and no files beside it"
            )
        return locked_plan(locked, planner, store)
    if isinstance(specs, str):
        specs = [specs]
    wanted = [Wanted(spec) if isinstance(spec, str) else spec for spec in specs]
    return planner.plan(wanted, selection, closed)


def _manifest(
    plan: PackPlan, locked: Manifest | None, store: BlobStore, progress: Progress
) -> tuple[Manifest, tuple[str, ...]]:
    """Bring everything into the store; the manifest of it, and what there is to say."""
    archives = _archives(plan.snapshots, store, progress)
    with ExitStack() as stack:
        try:
            remote = _taken_apart(plan.snapshots, archives, store, stack, locked=locked is not None)
            if locked is not None:
                planned = [s for s in locked.snapshots if s.layout != PREPARED]
                remote = [pinned(r, s) for r, s in zip(remote, planned, strict=True)]
            blobs = _fetch_all(list(contents(remote)), store, progress)
        except BundlerError as error:
            if _has_damage(error):
                for blob in archives.values():
                    store.discard(blob)  # It may be that one, and the next run asks for it anew.
            raise
    snapshots = [_snapshot(snapshot, blobs) for snapshot in remote]
    prepared, notes = _prepared(snapshots, locked, store, progress)
    if locked is not None:
        faults = list(absent(locked, store))
        if faults:
            raise Faults(faults)
        return locked, notes
    _check_places((*snapshots, *prepared))
    with told(store.root, "--store"):
        looked_at = [_with_code(s, store) for s in (*snapshots, *prepared)]
    return Manifest.of(looked_at), notes


def _check_places(snapshots: Sequence[Snapshot]) -> None:
    """Raise RequestError if two things would have to stand in one place on the target."""
    by_root: dict[str, list[Placement]] = defaultdict(list)
    for snapshot in (*snapshots, *flattened(snapshots)):
        layout = layout_of(snapshot)
        by_root[layout.root] += layout.place(snapshot, lambda _: True)
    for placements in by_root.values():
        try:
            without_contradictions(placements)
        except FormatError as error:
            said = str(error).removeprefix("the bundle")
            raise RequestError(f"this bundle{said}: pack them into two bundles") from None


def _archives(
    snapshots: Sequence[RemoteSnapshot], store: BlobStore, progress: Progress
) -> dict[str, Blob]:
    """Bring the archives that snapshots are inside of into the store, by identity."""
    zipped = [snapshot for snapshot in snapshots if snapshot.inside is not None]
    return _fetch_all(list(contents(zipped)), store, progress)


def _taken_apart(
    snapshots: Sequence[RemoteSnapshot],
    archives: Mapping[str, Blob],
    store: BlobStore,
    open_files: ExitStack,
    *,
    locked: bool,
) -> list[RemoteSnapshot]:
    """The snapshots with what is inside of archives as files of their own."""
    apart = []
    for snapshot in snapshots:
        if snapshot.inside is not None:
            blob = archives[snapshot.files[0].identity]
            archive = open_files.enter_context(store.open(blob))
            snapshot = from_zip(snapshot, archive, blob.digest)
            if not snapshot.files and not locked:
                raise RequestError(f"the archive of {snapshot.name} has none of the files wanted")
        apart.append(snapshot)
    return apart


def _has_damage(error: BundlerError) -> bool:
    faults = error.errors if isinstance(error, Faults) else (error,)
    return any(isinstance(fault, DamagedError) for fault in faults)


def _fetch_all(
    wanted: Sequence[tuple[str, RemoteFile]], store: BlobStore, progress: Progress
) -> dict[str, Blob]:
    """Bring content into the store, by identity. All of it is tried before a fault is told."""
    stop = threading.Event()
    blobs = {file.identity: blob for _, file in wanted if (blob := found(file, store))}
    missing = [(what, file) for what, file in wanted if file.identity not in blobs]
    faults: list[BundlerError] = []
    total = sum(file.size or 0 for _, file in missing)
    done = total - sum(missing_size(file, store) for _, file in missing)
    _check_store_space(total - done, store)
    pool = ThreadPoolExecutor(PARALLEL, "download")
    with progress.start("downloading", total, done) as meter:

        def fetched(item: tuple[str, RemoteFile]) -> None:
            what, file = item
            try:
                with told(store.root, "--store"):
                    blobs[file.identity] = fetch(file, what, store, meter, stop)
            except TargetError as error:
                stop.set()  # A full disk is full for all.
                faults.append(error)
            except BundlerError as error:
                faults.append(error)
            except Cancelled:
                pass

        try:
            list(pool.map(fetched, missing))
        finally:
            # Not waited for: a thread may hang in a read from a network that does not answer.
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
    if faults:
        raise Faults(sorted(faults, key=str))
    return blobs


def _snapshot(remote: RemoteSnapshot, blobs: dict[str, Blob]) -> Snapshot:
    return Snapshot(
        source=remote.source,
        name=remote.name,
        layout=remote.layout,
        files=tuple(
            FileEntry(relative_path(file.path), blobs[file.identity], file.etag)
            for file in remote.files
        ),
        kind=remote.kind,
        aliases=remote.aliases,
        revision=remote.revision,
        commit_hash=remote.commit_hash,
        license=remote.license,
        omitted=tuple(replace(item, path=plain_text(item.path)) for item in remote.omitted),
        specs=remote.specs,
        needs=remote.needs,
    )


def _prepared(
    snapshots: Sequence[Snapshot], locked: Manifest | None, store: BlobStore, progress: Progress
) -> tuple[list[Snapshot], tuple[str, ...]]:
    """The datasets among `snapshots` in the form that `load_dataset` reads, where that can be made.

    Not to be had is no error: the files are carried all the same, and the second value says so.
    """
    if locked is not None and not any(absent(locked, store)):
        return [], ()
    made, notes = [], []
    datasets = [s for s in snapshots if s.kind == "dataset" and s.layout == "hf-cache"]
    for snapshot in datasets if can_prepare() else ():
        with (
            progress.start(f"preparing {snapshot.name}", snapshot.size),
            told(store.root, "--store"),
            TemporaryDirectory(dir=store.root, prefix="prepared-") as work,
        ):
            source, target = Path(work, "files"), Path(work, "cache")
            for entry in snapshot.files:
                link = source / entry.path
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(store.path(entry.blob))
            files = {}
            try:
                for name in snapshot.names:  # Each is looked for in a folder of its own.
                    for path in prepare(name, source, target):
                        files[path] = store.take(target / path)
            except UnavailableError as error:
                notes.append(f"{snapshot.name}: only its files, not its prepared form ({error})")
                continue
            configs = {path.parts[1] for path in files}
            if len(configs) > 1:
                notes.append(
                    f"{snapshot.name} has several configs: offline, load_dataset needs one of "
                    f"their names too ({', '.join(sorted(configs))})"
                )
            entries = tuple(FileEntry(path, blob) for path, blob in files.items())
            made.append(replace(snapshot, layout=PREPARED, files=entries, omitted=()))
    return made, tuple(notes)


def _with_code(snapshot: Snapshot, store: BlobStore) -> Snapshot:
    code = [
        Code(plain_text(item.path), plain_text(item.reason))
        for item in code_of(snapshot, store.open)
    ]
    return replace(snapshot, code=tuple(code))


def _write(
    manifest: Manifest,
    store: BlobStore,
    output: Path | str | BinaryIO,
    level: int,
    jobs: int | None,
    progress: Progress,
) -> Packed:
    reading: list[Blob] = []

    def open_blob(blob: Blob) -> BinaryIO:
        reading[:] = [blob]
        return store.open(blob)

    path = Path(output) if isinstance(output, (str, Path)) else None
    total = sum(blob.size for blob in manifest.blobs())
    with _opened(output) as file, progress.start("writing the bundle", total) as meter:
        try:
            written = write_bundle(file, manifest, open_blob, meter, level=level, jobs=jobs)
        except DamagedError:
            store.discard(reading[0])
            raise DamagedError(
                f"a file in the store {store.root} had changed; it was dropped: "
                "run the same command again"
            ) from None
    return Packed(path, written.size, written.digest, manifest)


@contextmanager
def _opened(output: Path | str | BinaryIO) -> Iterator[BinaryIO]:
    """`output` for writing; at a path, a whole file appears at the end, or nothing."""
    with ExitStack() as stack:
        if not isinstance(output, (str, Path)):
            stack.enter_context(told(Path("the output"), "--output"))
            yield output
            output.flush()
            return
        # Where a link leads to, as with any program that writes a file.
        path = Path(os.path.realpath(output))
        stack.enter_context(told(path, "--output"))
        if path.exists() and not path.is_file():
            yield stack.enter_context(open(path, "wb"))  # A pipe or a device: nothing to replace.
        else:
            yield stack.enter_context(whole_file(path))


def _check_output(path: Path) -> None:
    """Refuse, before anything is downloaded, an output that cannot be written."""
    if path.is_dir():
        raise TargetError(f"{path} is a folder: name a file, such as {path / 'bundle.tar.zst'}")
    if not path.parent.is_dir():
        raise TargetError(f"the folder {path.parent} does not exist: make it, or change --output")
    if not os.access(path.parent, os.W_OK):
        raise TargetError(f"not allowed to write to {path.parent}: change --output")


def _check_store_space(needed: int, store: BlobStore) -> None:
    free = shutil.disk_usage(store.root).free
    if needed > free:
        raise TargetError(
            f"the store {store.root} has {amount(free)} free, and {amount(needed)} are to be "
            "downloaded: free some space, or name another folder with --store"
        )
