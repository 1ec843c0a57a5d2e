"""Specs -> snapshots -> one bundle."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from bundler.archive_writer import Levels, write_bundle
from bundler.code import refuse_code
from bundler.content import blob_of
from bundler.copies import ChangedError
from bundler.destination import Destination
from bundler.digest import Blob, Digest
from bundler.direct_io import DirectWriter
from bundler.errors import DamagedError, RequestError
from bundler.gathering import gather
from bundler.lending import Lending
from bundler.listing import Listing
from bundler.locked import locked_plan
from bundler.manifest import Manifest
from bundler.parity import write_parity
from bundler.permission import told
from bundler.planning import PackPlan, Planner
from bundler.progress import Progress, Silent
from bundler.request import Wanted
from bundler.selection import Selection
from bundler.since import Since
from bundler.sources import SOURCES, Source
from bundler.split_size import SplitSize
from bundler.splitting import Splitter
from bundler.stick import leave_readme, settle
from bundler.store import BlobStore, Usage
from bundler.trust import drop_older_signature
from bundler.upstream import Upstream
from bundler.whole_file import whole_file

if TYPE_CHECKING:
    from bundler.keys import PrivateKey


@dataclass(frozen=True, slots=True)
class Packed:
    """A finished bundle. `size` in bytes of the file; `digest` is the bundle's id."""

    path: Path | None
    size: int
    digest: Digest
    manifest: Manifest
    volumes: int = 0
    """In how many it was split, named `path` and `.000`, `.001`, …; 0 if it is one file."""
    notes: tuple[str, ...] = ()
    """What did not go as planned, and is no error; one sentence each."""
    repairs: bool = False
    """Whether it completes a bundle that was found damaged, and is not unpacked by itself."""
    signature: Path | None = None
    """Where the signature is, if there was a key to sign with."""
    parity: tuple[str, ...] = ()
    """The names of the parity files beside it, if some were asked for."""
    safe_to_remove: bool = False
    """Whether it went into a folder, was read back right, and nothing is left to be written."""
    readme: Path | None = None
    """The file in that folder which says how to unpack it."""

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
            "volumes": self.volumes,
            "signature": None if self.signature is None else str(self.signature),
            "parity": list(self.parity),
            "safe_to_remove": self.safe_to_remove,
            "readme": None if self.readme is None else str(self.readme),
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
    needed: Manifest | None = None,
    since: Sequence[Listing] = (),
    code: bool = True,
    sources: Sequence[Source] = SOURCES,
    progress: Progress | None = None,
) -> PackPlan:
    """Resolve `specs` from metadata alone: nothing is downloaded, nothing is written.

    `upstream`: where to look for them. `everything`: pack all that the libraries' caches on this
    machine hold, too. `store`: the folder that keeps downloads (`default_store`). `closed`: bring
    what the models need from other repositories too. `locked`:
    instead of `specs`, plan for exactly what this manifest has. `needed`: the same for one that
    `verify` asks for a repair with. `since`: what the target has
    already, which stays out of the bundle (`read_listing`). `code`: False refuses models that
    hold some, as far as names tell.

    Raises Faults with every RequestError and UnavailableError of the request, or TrustError.
    """
    folder = _store(store)
    with upstream.open((progress or Silent()).say) as (hub, web, caches):
        planner = Planner(hub, web, caches, sources, folder)
        locked, already = _given(locked, needed, since, folder)
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
    needed: Manifest | None = None,
    since: Sequence[Listing] = (),
    code: bool = True,
    split_size: SplitSize | None = None,
    sign: PrivateKey | None = None,
    parity: int | None = None,
    level: int | None = None,
    jobs: int | None = None,
    sources: Sequence[Source] = SOURCES,
    on_plan: Callable[[PackPlan], None] | None = None,
    progress: Progress | None = None,
) -> Packed:
    """Download the models that `specs` name and write them into one bundle at `output`.

    `output`: a path, replaced only by a whole bundle; a folder that is there, such as a stick; or a
    binary stream. In a folder the bundle gets a name (`bundle_name`, `free_place`), is read back
    and compared before it is found under it, and a README.txt goes beside it. `split_size`: write
    volumes beside that path instead (`split_file`), of so many bytes, or "auto" if the file system
    cannot hold the bundle in one file, which is the default for a folder. `sign`: the key for a
    signature, which is written beside the bundle, so `output` is a path then. `parity`: of so many
    hundredths, parity files beside the bundle, likewise (`write_parity`). `level`: of zstd, 1 to
    19, by default `Levels()`. `jobs`: threads that hash and compress. `on_plan` is called once
    everything is resolved, before anything is downloaded. The rest as in `plan_pack`.

    Raises Faults or one of RequestError, UnavailableError, DamagedError (upstream sends other bytes
    than it promises, or a stick gives back other ones than it got), TrustError (`code`) and
    TargetError (output or store). What was downloaded is kept, and running again goes on from
    there.
    """
    progress = progress or Silent()
    destination = Destination(output, split_size, progress)
    if sign is not None:
        destination.require_signature_path()
    if parity is not None:
        destination.require_parity_path()
    folder = _store(store)
    with upstream.open(progress.say) as (hub, web, caches):
        planner = Planner(hub, web, caches, sources, folder)
        locked, already = _given(locked, needed, since, folder)
        plan = _plan(planner, specs, selection, closed, everything, locked, already, folder)
        if not code:
            refuse_code(plan.snapshots)
        if on_plan is not None:
            on_plan(plan)
        with folder as blobs:
            destination.expect(plan, blobs.root, parity or 0)

            def gathered_and_written(*, late: bool) -> Packed:
                """`late`: large files of this machine are read when they are written."""
                unnamed = destination.takes_back and locked is None and not since
                lending = Lending(blobs, named=late, unnamed=late and unnamed)
                manifest, notes = gather(
                    plan, locked, already, blobs, lending, progress, web.patience
                )
                if not code:
                    refuse_code(manifest.snapshots, already.code_of)
                done = _write(manifest, blobs, lending, destination, level, jobs, progress)
                return replace(done, notes=notes)

            try:
                packed = gathered_and_written(late=destination.path is not None)
            except _DamagedOnTheWayError as error:
                if destination.path is None:
                    raise  # Some of it has been read already.
                if error.in_store:
                    progress.say(
                        f"files in the store {blobs.root}, or read in their places, had changed: "
                        "they are brought anew"
                    )
                packed = gathered_and_written(late=False)
            packed = replace(packed, repairs=needed is not None and bool(needed.builds_on))
            return _with_company(packed, destination, sign, parity, progress)


def _with_company(
    packed: Packed,
    destination: Destination,
    key: PrivateKey | None,
    parity: int | None,
    progress: Progress,
) -> Packed:
    """Put beside the bundle what goes there."""
    path = packed.path
    if path is None:
        return packed
    if key is not None:
        packed = _signed(packed, path, key, destination)
    elif older := drop_older_signature(path, packed.digest):
        said = f"{older} was the signature of an older bundle, and is removed"
        packed = replace(packed, notes=(*packed.notes, said))
    if parity is not None:
        packed = _with_parity(packed, path, parity, destination, progress)
    if destination.stick is not None:
        readme, why_not = leave_readme(path, repairs=packed.repairs)
        settle(destination.stick)
        notes = (*packed.notes, *why_not)
        packed = replace(packed, safe_to_remove=True, readme=readme, notes=notes)
    return packed


def _signed(packed: Packed, path: Path, key: PrivateKey, destination: Destination) -> Packed:
    from bundler.signature import signature_of

    # Afterwards: an older bundle keeps its own until this one takes its place.
    signature = destination.signature_path(path)
    content = signature_of(packed.manifest, key)
    with told(signature, "--output"):
        with whole_file(signature) as file:
            file.write(content)
        destination.look_again([(signature, Blob.of(content))])
    return replace(packed, signature=signature)


def _with_parity(
    packed: Packed, path: Path, share: int, destination: Destination, progress: Progress
) -> Packed:
    def look_again(files: Sequence[Path]) -> None:
        if destination.stick is not None:
            destination.look_again([(file, blob_of(file)) for file in files])

    names = write_parity(Path(os.path.realpath(path)), share, progress, look_again)
    return replace(packed, parity=names)


def _given(
    locked: Manifest | None, needed: Manifest | None, since: Sequence[Listing], store: BlobStore
) -> tuple[Manifest | None, Since]:
    """The manifest that is to be packed, if that is known, and what need not be."""
    if needed is not None:
        if locked is not None or since:
            raise RequestError(
                "what is needed for a repair goes without a locked manifest and since"
            )
        locked, since = needed, [Listing.of_needed(needed)]
    return locked, Since(since, store, locked)


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
    lending: Lending,
    destination: Destination,
    level: int | None,
    jobs: int | None,
    progress: Progress,
) -> Packed:
    levels = Levels() if level is None else Levels.all(level)
    total = sum(entry.blob.size for _, entry in manifest.carried())
    with (
        destination.opened(manifest) as (file, path),
        progress.start("writing the bundle", total) as meter,
    ):
        try:
            written = write_bundle(
                file,
                manifest,
                store.open,
                meter.add,
                checksums=store.checksums,
                levels=levels,
                jobs=jobs,
                unnamed=lending.stand_ins,
                rewrite=file.rewrite if isinstance(file, DirectWriter) else None,
            )
        except DamagedError as error:
            lending.end()
            with told(store.root, "--store"), progress.start("checking the store", total) as meter:
                dropped = store.discard_damaged(manifest.blobs(), meter.add)
            raise _DamagedOnTheWayError(store.root, error, in_store=dropped) from None
    lending.settle(written.names)
    volumes = len(file.written) if isinstance(file, Splitter) and not file.is_whole else 0
    return Packed(path, written.size, written.digest, written.manifest, volumes)


class _DamagedOnTheWayError(DamagedError):
    """Content was not what it had been, or was said to be; what the store had of it is dropped."""

    def __init__(self, store: Path, error: DamagedError, *, in_store: bool) -> None:
        said = (
            f"files in the store {store} had changed; they were dropped: run the same command again"
        )
        super().__init__(str(error) if isinstance(error, ChangedError) else said)
        self.in_store = in_store
