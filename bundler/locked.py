"""A manifest -> a plan for exactly its commits and digests, wherever they are still to be had."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from functools import partial

from bundler.digest import Blob, Stream
from bundler.errors import BundlerError, Faults, SetupError, UnavailableError
from bundler.manifest import FileEntry, Manifest, Snapshot
from bundler.origin import Origin
from bundler.planning import PackPlan, Planner
from bundler.prepared import PREPARED
from bundler.remote import PathInside, RemoteFile, RemoteSnapshot
from bundler.since import Since
from bundler.spec import full_spec
from bundler.store import BlobStore


def locked_plan(manifest: Manifest, planner: Planner, store: BlobStore, since: Since) -> PackPlan:
    """What brings everything in `manifest` that is not prepared here, in its order.

    What the store has already, or the target, is not asked for upstream. Raises Faults with an
    UnavailableError for every model that is no longer to be had as it was.
    """
    snapshots = []
    faults: list[BundlerError] = []
    for snapshot in manifest.snapshots:
        if snapshot.layout == PREPARED:
            continue
        try:
            snapshots.append(_planned(snapshot, planner, store, since))
        except SetupError:
            raise
        except BundlerError as error:
            faults.append(UnavailableError(f"no longer to be had: {snapshot.name} ({error})"))
    if faults:
        raise Faults(faults)
    return PackPlan.of(snapshots, store)


def pinned(remote: RemoteSnapshot, snapshot: Snapshot) -> RemoteSnapshot:
    """`remote` with the files of `snapshot`, each to be exactly that content.

    Raises UnavailableError if a file is gone, or upstream itself says that it is another now.
    """
    files = {file.path: file for file in remote.files}
    gone = [
        str(entry.path)
        for entry in snapshot.files
        if not _agrees(files.get(str(entry.path)), entry)
    ]
    if gone:
        more = f" and {len(gone) - 1} more files" if len(gone) > 1 else ""
        raise UnavailableError(
            f"no longer to be had as the manifest has it: {gone[0]}{more} of {snapshot.name}"
        )
    return replace(
        remote,
        files=tuple(
            replace(files[str(e.path)], digest=e.blob.digest, size=e.blob.size, etag=e.etag)
            for e in snapshot.files
        ),
    )


def absent(manifest: Manifest, store: BlobStore, since: Since) -> Iterator[UnavailableError]:
    """What `manifest` has, and neither `store` nor the target has, in words."""
    for snapshot, entry in manifest.contents():
        if entry.blob not in since.blobs and not store.has(entry.blob):
            advice = ": install bundler[datasets] here" if snapshot.layout == PREPARED else ""
            yield UnavailableError(
                f"no longer to be had: {entry.path} of {snapshot.name}, as the manifest has it"
                f"{advice}"
            )


def _planned(
    snapshot: Snapshot, planner: Planner, store: BlobStore, since: Since
) -> RemoteSnapshot:
    there = since.spared(snapshot)
    if all(entry.blob in there or store.has(entry.blob) for entry in snapshot.files):
        return _stored(snapshot, store)
    at = f"@{snapshot.commit_hash}" if snapshot.commit_hash and "://" not in snapshot.name else ""
    for remote in planner.resolve(full_spec(snapshot.source, snapshot.name) + at):
        if remote.layout == snapshot.layout:
            wanted = {str(entry.path) for entry in snapshot.files}
            if remote.inside is not None:
                return replace(remote, inside=partial(_among, wanted, remote.inside))
            return pinned(remote, snapshot)
    raise UnavailableError("not in the form that the manifest has")


def _among(wanted: Container[str], pick: PathInside, member: str) -> str | None:
    path = pick(member)
    return path if path in wanted else None


@dataclass(frozen=True, slots=True, eq=False)
class _Stored(Origin):
    """What the store has already."""

    store: BlobStore
    blob: Blob

    @property
    def identity(self) -> str:
        return str(self.blob.digest)

    def open(self, start: int, /) -> Stream:
        return self.store.open_at(self.blob, start)


def _stored(snapshot: Snapshot, store: BlobStore) -> RemoteSnapshot:
    """A snapshot of which the store has everything."""
    return RemoteSnapshot(
        source=snapshot.source,
        name=snapshot.name,
        layout=snapshot.layout,
        files=tuple(
            RemoteFile(
                path=str(entry.path),
                origin=_Stored(store, entry.blob),
                size=entry.blob.size,
                digest=entry.blob.digest,
                etag=entry.etag,
            )
            for entry in snapshot.files
        ),
        kind=snapshot.kind,
        aliases=snapshot.aliases,
        revision=snapshot.revision,
        commit_hash=snapshot.commit_hash,
        specs=snapshot.specs,
        needs=snapshot.needs,
    )


def _agrees(file: RemoteFile | None, entry: FileEntry) -> bool:
    """Whether upstream's file may be the one of the manifest, as far as it says."""
    return (
        file is not None
        and file.size in (None, entry.blob.size)
        and file.digest in (None, entry.blob.digest)
        and (file.git_sha1 is None or file.git_sha1 == entry.etag)
    )
