"""Specs -> snapshots -> one bundle."""

from __future__ import annotations

import os
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from bundler.archive import write_bundle
from bundler.digest import Blob, Digest
from bundler.download import Cancelled, Web, fetch, found
from bundler.errors import (
    BundlerError,
    DamagedError,
    Faults,
    RequestError,
    TargetError,
    UnavailableError,
    amount,
)
from bundler.frames import DEFAULT_LEVEL
from bundler.hub import Hub
from bundler.manifest import FileEntry, Manifest, Snapshot
from bundler.names import plain_text, relative_path
from bundler.progress import Progress, Silent
from bundler.remote import RemoteFile, RemoteSnapshot
from bundler.selection import Selection, select
from bundler.sources import SOURCES, Source, resolve
from bundler.spec import Spec
from bundler.store import BlobStore
from bundler.whole_file import told, whole_file

PARALLEL = 8
"""Requests and downloads under way at once."""


@dataclass(frozen=True, slots=True)
class PackPlan:
    """What a pack will bring: pinned snapshots with the files chosen. Sizes in bytes."""

    snapshots: tuple[RemoteSnapshot, ...]
    missing_size: int
    """Of what is still to be downloaded."""

    @property
    def size(self) -> int:
        """Of everything in the bundle before compression, as far as upstream tells sizes."""
        return sum(file.size or 0 for _, file in _contents(self.snapshots))

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for programs."""
        return {
            "models": [
                {
                    "source": snapshot.source,
                    "name": snapshot.name,
                    "aliases": list(snapshot.aliases),
                    "revision": snapshot.revision,
                    "commit_hash": snapshot.commit_hash,
                    "license": snapshot.license,
                    "files": [{"path": f.path, "size": f.size} for f in snapshot.files],
                    "omitted": [
                        {"path": item.path, "size": item.size, "reason": item.reason}
                        for item in snapshot.omitted
                    ],
                }
                for snapshot in self.snapshots
            ],
            "download_size": self.missing_size,
            "size": self.size,
        }


@dataclass(frozen=True, slots=True)
class Packed:
    """A finished bundle. `size` in bytes of the file; `digest` is the bundle's id."""

    path: Path | None
    size: int
    digest: Digest
    manifest: Manifest

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for programs."""
        return {
            "path": None if self.path is None else str(self.path),
            "size": self.size,
            "bundle": str(self.digest),
        }


def _contents(snapshots: Sequence[RemoteSnapshot]) -> Iterator[tuple[str, RemoteFile]]:
    """Each content once, with a name for messages."""
    seen: set[str] = set()
    for snapshot in snapshots:
        for file in snapshot.files:
            if file.identity not in seen:
                seen.add(file.identity)
                yield f"{file.path} of {snapshot.name}", file


def _missing_size(file: RemoteFile, store: BlobStore) -> int:
    """Bytes of `file` that the store does not have even in part."""
    return max(0, (file.size or 0) - store.partial_size(file.identity))


def default_store() -> Path:
    """The folder that keeps downloads: `$XDG_CACHE_HOME/bundler`, else `~/.cache/bundler`."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.abspath(os.path.expanduser(caches))) / "bundler"


def _store(folder: Path | str | None) -> BlobStore:
    return BlobStore(Path(folder) if folder else default_store())


def plan_pack(
    specs: Sequence[str],
    *,
    selection: Selection = Selection(),
    endpoint: str | None = None,
    store: Path | str | None = None,
    sources: Sequence[Source] = SOURCES,
) -> PackPlan:
    """Resolve `specs` from metadata alone: nothing is downloaded, nothing is written.

    `endpoint`: the Hub to ask, by default that of `HF_ENDPOINT`, else the public one. `store`: the
    folder that keeps downloads (`default_store`). Raises Faults with every RequestError and
    UnavailableError of the request.
    """
    with closing(Web()) as web:
        return _plan(specs, selection, Hub(web, endpoint), sources, _store(store))


def pack(
    specs: Sequence[str],
    output: Path | str | BinaryIO,
    *,
    selection: Selection = Selection(),
    endpoint: str | None = None,
    store: Path | str | None = None,
    level: int = DEFAULT_LEVEL,
    jobs: int | None = None,
    sources: Sequence[Source] = SOURCES,
    on_plan: Callable[[PackPlan], None] | None = None,
    progress: Progress | None = None,
) -> Packed:
    """Download the models that `specs` name and write them into one bundle at `output`.

    `output`: a path, replaced only by a whole bundle, or a binary stream. `store`: the folder that
    keeps downloads (`default_store`). `level`: of zstd, 1 to 19. `jobs`: threads that compress.
    `on_plan` is called once everything is resolved, before anything is downloaded.

    Raises Faults or one of RequestError, UnavailableError, DamagedError (upstream sends other bytes
    than it promises) and TargetError (output or store). What was downloaded is kept, and running
    again goes on from there.
    """
    progress = progress or Silent()
    if isinstance(output, (str, Path)):
        _check_output(Path(output))
    with closing(Web()) as web:
        plan = _plan(specs, selection, Hub(web, endpoint), sources, _store(store))
        if on_plan is not None:
            on_plan(plan)
        with _store(store) as blobs:
            manifest = _fetch_all(plan, blobs, progress)
            return _write(manifest, blobs, output, level, jobs, progress)


def _plan(
    specs: Sequence[str],
    selection: Selection,
    hub: Hub,
    sources: Sequence[Source],
    store: BlobStore,
) -> PackPlan:
    if isinstance(specs, str):
        specs = [specs]
    if not specs:
        raise RequestError("no models named: bundler pack --models ORG/NAME … -o FILE")

    def resolved(text: str) -> list[RemoteSnapshot] | BundlerError:
        try:
            snapshots = resolve(Spec.parse(text), hub, sources)
            return [_checked(select(snapshot, selection)) for snapshot in snapshots]
        except BundlerError as error:
            return error

    with ThreadPoolExecutor(PARALLEL, "resolve") as pool:
        results = list(pool.map(resolved, dict.fromkeys(specs)))
    faults = [result for result in results if isinstance(result, BundlerError)]
    if faults:
        raise Faults(faults)
    snapshots = _one_name_each([s for r in results if isinstance(r, list) for s in r])
    missing = (file for _, file in _contents(snapshots) if found(file, store) is None)
    return PackPlan(snapshots, sum(_missing_size(file, store) for file in missing))


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


def _one_name_each(snapshots: Sequence[RemoteSnapshot]) -> tuple[RemoteSnapshot, ...]:
    """One main name for each repository, though it was asked for under several; revisions once."""
    names: dict[tuple[str, str], set[str]] = defaultdict(set)
    for snapshot in snapshots:
        names[snapshot.source, _canonical(snapshot)] |= {snapshot.name, *snapshot.aliases}
    unique = {}
    for snapshot in snapshots:
        # The name that is not the canonical one comes first, whatever the order of asking.
        canonical = _canonical(snapshot)
        known = names[snapshot.source, canonical]
        name, *aliases = sorted(known, key=lambda name: (name == canonical, name))
        named = replace(snapshot, name=name, aliases=tuple(aliases))
        unique[named.source, name, named.revision] = named
    return tuple(unique.values())


def _canonical(snapshot: RemoteSnapshot) -> str:
    return snapshot.aliases[-1] if snapshot.aliases else snapshot.name


def _fetch_all(plan: PackPlan, store: BlobStore, progress: Progress) -> Manifest:
    """Bring everything into the store. All of it is tried before the first fault is told."""
    stop = threading.Event()
    contents = list(_contents(plan.snapshots))
    blobs = {file.identity: blob for _, file in contents if (blob := found(file, store))}
    missing = [(what, file) for what, file in contents if file.identity not in blobs]
    faults: list[BundlerError] = []
    total = sum(file.size or 0 for _, file in missing)
    done = total - sum(_missing_size(file, store) for _, file in missing)
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
    return Manifest.of(_snapshot(snapshot, blobs) for snapshot in plan.snapshots)


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
    )


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
