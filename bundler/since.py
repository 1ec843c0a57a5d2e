"""What is on the target already, and so stays out of a new bundle."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Sequence
from typing import BinaryIO

from bundler.code import code_of
from bundler.digest import Blob, Digest
from bundler.download import found
from bundler.listing import Listing
from bundler.manifest import Code, Manifest, Snapshot
from bundler.planning import PackPlan, contents
from bundler.prepared import PREPARED, can_prepare
from bundler.remote import RemoteFile, RemoteSnapshot
from bundler.store import BlobStore


class Since:
    """What `listings` say is there: earlier bundles, which are unpacked there, and inventories."""

    def __init__(
        self, listings: Sequence[Listing], store: BlobStore, locked: Manifest | None = None
    ) -> None:
        """`locked`: the manifest that is to be packed, if that is known."""
        self._listings = listings
        self._store = store
        self.blobs: frozenset[Blob] = frozenset().union(*(one.blobs for one in listings))
        self._git_names: dict[str, Blob] = {}
        self._code: dict[Blob, str] = {}
        for manifest in (one.manifest for one in listings if one.manifest is not None):
            git_names = manifest.git_names()
            for _, entry in manifest.contents():
                if entry.blob.digest in git_names:
                    self._git_names[git_names[entry.blob.digest]] = entry.blob
            for snapshot in manifest.snapshots:
                reasons = {item.path: item.reason for item in snapshot.code}
                for entry in snapshot.files:
                    if "pickle" in reasons.get(entry.path, ""):
                        self._code[entry.blob] = reasons[entry.path]
        made = (s for s in (locked.snapshots if locked else ()) if s.layout == PREPARED)
        self._prepares = can_prepare() and (
            locked is None
            or any(
                e.blob not in self.blobs and not store.has(e.blob) for s in made for e in s.files
            )
        )

    def spared(self, snapshot: Snapshot | RemoteSnapshot) -> Collection[Blob]:
        """What of a snapshot need not be had here: nothing of a dataset that is to be prepared."""
        return () if self._prepares and snapshot.kind == "dataset" else self.blobs

    def applied(self, plan: PackPlan) -> PackPlan:
        """The plan that brings what is not there."""
        if not self.blobs:
            return plan
        wanted = [s for s in plan.snapshots if not self.spared(s) or s.inside is not None]
        kept = {file.key for _, file in contents(wanted)}
        there = {
            file.key: blob
            for _, file in contents(plan.snapshots)
            if file.key not in kept and (blob := self._blob_of(file)) is not None
        }
        return PackPlan.of(plan.snapshots, self._store, plan.remarks, there)

    def _blob_of(self, file: RemoteFile) -> Blob | None:
        """The blob on the target that a file upstream is, as far as upstream tells."""
        if file.digest is not None and file.size is not None:
            blob = Blob(file.digest, file.size)
            return blob if blob in self.blobs else None
        named = self._git_names.get(file.git_sha1 or "") or found(file, self._store)
        return named if named in self.blobs else None

    def left_out(self, manifest: Manifest) -> Manifest:
        """The manifest without what is there, and with the bundles that brought that."""
        brought: set[Digest] = set()
        for listing in self._listings:
            if any(blob in listing.blobs for blob in manifest.blobs()):
                brought |= {*listing.bundles}
        return manifest.without(self.blobs, brought)

    def code_of(self, snapshot: Snapshot) -> Iterator[Code]:
        """What of a snapshot runs as code; of what is there, as it was seen when it was packed."""
        seen = {item.path: item for item in code_of(snapshot, self._opened)}
        for entry in snapshot.files:
            path = str(entry.path)
            if path not in seen and entry.blob in self._code:
                seen[path] = Code(path, self._code[entry.blob])
        return iter(seen.values())

    def _opened(self, blob: Blob) -> BinaryIO:
        return io.BytesIO() if blob in self.blobs else self._store.open(blob)
