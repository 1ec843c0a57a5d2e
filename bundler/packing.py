"""Specs -> snapshots -> one bundle."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from bundler.archive import Levels, write_bundle
from bundler.code import refuse_code
from bundler.digest import Digest
from bundler.direct_io import DirectWriter
from bundler.errors import DamagedError, RequestError, TargetError, amount
from bundler.frames import Output
from bundler.gathering import gather
from bundler.listing import Listing
from bundler.locked import locked_plan
from bundler.manifest import Manifest
from bundler.permission import told
from bundler.planning import PackPlan, Planner
from bundler.progress import Progress, Silent
from bundler.request import Wanted
from bundler.selection import Selection
from bundler.since import Since
from bundler.sources import SOURCES, Source
from bundler.space import free_space, same_disk
from bundler.store import BlobStore, Usage
from bundler.trust import signature_path
from bundler.upstream import Upstream
from bundler.whole_file import whole_file

if TYPE_CHECKING:
    from bundler.keys import PrivateKey

_SMALLEST_SHARE = 0.5
"""Of their size, what models can be expected to take in a bundle at the least: weights compress to
0.78 of it or more, and little else counts."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A finished bundle. `size` in bytes of the file; `digest` is the bundle's id."""

    path: Path | None
    size: int
    digest: Digest
    manifest: Manifest
    notes: tuple[str, ...] = ()
    """What did not go as planned, and is no error; one sentence each."""
    signature: Path | None = None
    """Where the signature is, if there was a key to sign with."""

    @property
    def saved_size(self) -> int:
        """Bytes of what is on the target already and stayed out of the bundle, uncompressed."""
        return sum(entry.blob.size for _, entry in self.manifest.lacking())

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for programs."""
        return {
            "path": None if self.path is None else str(self.path),
            "size": self.size,
            "bundle": str(self.digest),
            "signature": None if self.signature is None else str(self.signature),
            "saved_size": self.saved_size,
            "notes": list(self.notes),
        }


def default_store() -> Path:
    """The folder that keeps downloads: `$XDG_CACHE_HOME/bundler`, else `~/.cache/bundler`."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.abspath(os.path.expanduser(caches))) / "bundler"


def _store(folder: Path | str | None) -> BlobStore:
    return BlobStore(Path(folder) if folder else default_store())


def open_store(folder: Path | str | None = None, *, clear: bool = False) -> Usage:
    """What the store at `folder` holds (by default `default_store`); `clear` drops it afterwards.

    Raises TargetError if it is in use, or cannot be emptied.
    """
    store = _store(folder)
    with told(store.root, "--store"):
        usage = store.usage()
        if clear and usage != Usage(store.root):
            with store:
                store.clear()
    return usage


def plan_pack(
    specs: Sequence[str | Wanted],
    *,
    selection: Selection = Selection(),
    upstream: Upstream = Upstream(),
    everything: bool = False,
    store: Path | str | None = None,
    closed: bool = True,
    locked: Manifest | None = None,
    since: Sequence[Listing] = (),
    code: bool = True,
    sources: Sequence[Source] = SOURCES,
    progress: Progress | None = None,
) -> PackPlan:
    """Resolve `specs` from metadata alone: nothing is downloaded, nothing is written.

    `upstream`: where to look for them. `everything`: pack all that the libraries' caches on this
    machine hold, too. `store`: the folder that keeps downloads (`default_store`). `closed`: bring
    what the models need from other repositories too. `locked`:
    instead of `specs`, plan for exactly what this manifest has. `since`: what the target has
    already, which stays out of the bundle (`read_listing`). `code`: False refuses models that
    hold some, as far as names tell.

    Raises Faults with every RequestError and UnavailableError of the request, or TrustError.
    """
    folder = _store(store)
    with upstream.open((progress or Silent()).say) as (hub, web, caches):
        planner = Planner(hub, web, caches, sources, folder)
        already = Since(since, folder, locked)
        plan = _plan(planner, specs, selection, closed, everything, locked, already, folder)
    if not code:
        refuse_code(plan.snapshots)
    return plan


def pack(
    specs: Sequence[str | Wanted],
    output: Path | str | BinaryIO,
    *,
    selection: Selection = Selection(),
    upstream: Upstream = Upstream(),
    everything: bool = False,
    store: Path | str | None = None,
    closed: bool = True,
    locked: Manifest | None = None,
    since: Sequence[Listing] = (),
    code: bool = True,
    sign: PrivateKey | None = None,
    level: int | None = None,
    jobs: int | None = None,
    sources: Sequence[Source] = SOURCES,
    on_plan: Callable[[PackPlan], None] | None = None,
    progress: Progress | None = None,
) -> Packed:
    """Download the models that `specs` name and write them into one bundle at `output`.

    `output`: a path, replaced only by a whole bundle, or a binary stream. `sign`: the key
    for a signature, which is written beside the bundle, so `output` is a path then. `level`: of
    zstd, 1 to 19, by default `Levels()`. `jobs`: threads that hash and compress. `on_plan` is
    called once everything is resolved, before anything is downloaded. The rest as in `plan_pack`.

    Raises Faults or one of RequestError, UnavailableError, DamagedError (upstream sends other bytes
    than it promises), TrustError (`code`) and TargetError (output or store). What was downloaded is
    kept, and running again goes on from there.
    """
    progress = progress or Silent()
    if isinstance(output, (str, Path)):
        _check_output(Path(output))
    signature = None if sign is None else _signature_path(output)
    folder = _store(store)
    with upstream.open(progress.say) as (hub, web, caches):
        planner = Planner(hub, web, caches, sources, folder)
        already = Since(since, folder, locked)
        plan = _plan(planner, specs, selection, closed, everything, locked, already, folder)
        if not code:
            refuse_code(plan.snapshots)
        if on_plan is not None:
            on_plan(plan)
        with folder as blobs:
            path = _replaced(output)
            if path is not None:
                _check_output_space(path, plan, blobs)

            def gathered_and_written() -> Packed:
                manifest, notes = gather(plan, locked, already, blobs, progress, web.patience)
                if not code:
                    refuse_code(manifest.snapshots, already.code_of)
                return replace(_write(manifest, blobs, output, level, jobs, progress), notes=notes)

            try:
                packed = gathered_and_written()
            except _StoreDamagedError:
                if path is None:
                    raise  # Some of it has been read already.
                progress.say(f"files in the store {blobs.root} had changed: they are brought anew")
                packed = gathered_and_written()
            if sign is not None and signature is not None:
                from bundler.signature import signature_of

                # Afterwards: an older bundle keeps its own until this one takes its place.
                with told(signature, "--output"), whole_file(signature) as file:
                    file.write(signature_of(packed.manifest, sign))
            return replace(packed, signature=signature)


def _plan(
    planner: Planner,
    specs: Sequence[str | Wanted],
    selection: Selection,
    closed: bool,
    everything: bool,
    locked: Manifest | None,
    since: Since,
    store: BlobStore,
) -> PackPlan:
    if locked is not None:
        if specs or everything or selection != Selection():
            raise RequestError(
                "a locked manifest says what to pack: name no models and no files beside it"
            )
        plan = locked_plan(locked, planner, store, since)
    else:
        specs = [specs] if isinstance(specs, str) else specs
        wanted = [Wanted(spec) if isinstance(spec, str) else spec for spec in specs]
        plan = planner.plan(wanted, selection, closed, everything)
    plan = since.applied(plan)
    planner.check_reach(plan)
    return plan


def _write(
    manifest: Manifest,
    store: BlobStore,
    output: Path | str | BinaryIO,
    level: int | None,
    jobs: int | None,
    progress: Progress,
) -> Packed:
    levels = Levels() if level is None else Levels.all(level)
    path = Path(output) if isinstance(output, (str, Path)) else None
    total = sum(entry.blob.size for _, entry in manifest.carried())
    with _opened(output) as file, progress.start("writing the bundle", total) as meter:
        try:
            written = write_bundle(
                file,
                manifest,
                store.open,
                meter.add,
                checksums=store.checksums,
                levels=levels,
                jobs=jobs,
            )
        except DamagedError:
            with told(store.root, "--store"), progress.start("checking the store", total) as meter:
                store.discard_damaged(manifest.blobs(), meter.add)
            raise _StoreDamagedError(store.root) from None
    return Packed(path, written.size, written.digest, manifest)


class _StoreDamagedError(DamagedError):
    """Content of the store was not what it had been; all of it that was damaged is dropped."""

    def __init__(self, store: Path) -> None:
        super().__init__(
            f"files in the store {store} had changed; they were dropped: run the same command again"
        )


@contextmanager
def _opened(output: Path | str | BinaryIO) -> Iterator[Output]:
    """`output` for writing; at a path, a whole file appears at the end, or nothing."""
    with ExitStack() as stack:
        if not isinstance(output, (str, Path)):
            stack.enter_context(told(Path("the output"), "--output"))
            yield output
            output.flush()
            return
        path = _replaced(output)
        stack.enter_context(told(path or Path(output), "--output"))
        if path is None:
            yield stack.enter_context(open(output, "wb"))
        else:
            with whole_file(path) as file:
                direct = DirectWriter(file.fileno())
                yield direct
                direct.finish()


def _replaced(output: Path | str | BinaryIO) -> Path | None:
    """Where a whole file replaces what is there; None for a stream, a pipe or a device."""
    if not isinstance(output, (str, Path)):
        return None
    # Where a link leads to, as with any program that writes a file.
    path = Path(os.path.realpath(output))
    return None if path.exists() and not path.is_file() else path


def _check_output(path: Path) -> None:
    """Refuse, before anything is downloaded, an output that cannot be written."""
    if path.is_dir():
        raise TargetError(f"{path} is a folder: name a file, such as {path / 'bundle.tar.zst'}")
    if not path.parent.is_dir():
        raise TargetError(f"the folder {path.parent} does not exist: make it, or change --output")
    if not os.access(path.parent, os.W_OK):
        raise TargetError(f"not allowed to write to {path.parent}: change --output")


def _signature_path(output: Path | str | BinaryIO) -> Path:
    """Where the signature will be. Raises RequestError or TargetError if it cannot be there."""
    path = Path(output) if isinstance(output, (str, Path)) else None
    if path is None or (path.exists() and not path.is_file()):
        raise RequestError("a signature goes beside a file: name one for the bundle with --output")
    signature = signature_path(path)
    if signature.is_dir():
        raise TargetError(f"{signature} is a folder, and the signature goes there: move it away")
    return signature


def _check_output_space(path: Path, plan: PackPlan, store: BlobStore) -> None:
    """Refuse, before anything is downloaded, an output that is sure not to fit. Raises TargetError.

    What is still to be downloaded takes of the same space if the store is on the same disk.
    """
    needed = int(plan.size * _SMALLEST_SHARE)
    share = plan.missing_size if same_disk(path.parent, store.root) else 0
    free = free_space(path.parent)
    if needed + share > free:
        also = f", beside {amount(share)} of downloads," if share else ""
        raise TargetError(
            f"{path.parent} has {amount(free)} free, and a bundle of at least {amount(needed)}"
            f"{also} is to go there: free some space, or name another place with --output"
        )
