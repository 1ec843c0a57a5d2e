"""One bundle that brings what another one has damaged or lost."""

from __future__ import annotations

from collections.abc import Iterable

from bundler.archive import BundleReader
from bundler.digest import Blob, Digest
from bundler.manifest import Manifest


def mends(repair: BundleReader, manifest: Manifest, blobs: Iterable[Blob]) -> dict[Digest, Blob]:
    """Those of `blobs`, content of `manifest`, that the bundle `repair` brings."""
    git_names = manifest.git_names()
    brought = {member.blob: member.git_sha1 for member in repair.members}
    return {
        # A git name that another manifest does not state would not be compared.
        blob.digest: blob
        for blob in blobs
        if blob in brought and git_names.get(blob.digest) in (None, brought[blob])
    }
