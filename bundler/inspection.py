"""What a bundle holds, from its first frames alone."""

from __future__ import annotations

from dataclasses import dataclass

from bundler.archive import BundleSource, open_bundle
from bundler.digest import Digest
from bundler.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Inspection:
    """The id and the manifest of a bundle; `manifest_bytes` are what the id is the sha256 of."""

    digest: Digest
    manifest: Manifest
    manifest_bytes: bytes

    @property
    def size(self) -> int:
        """Bytes of all blobs, uncompressed, each once."""
        return sum(blob.size for blob in self.manifest.blobs())


def inspect(bundle: BundleSource, *, digest: Digest | None = None) -> Inspection:
    """Read the manifest of `bundle` and nothing after it.

    `digest` is the bundle's id, if known from elsewhere. Raises RequestError (no such file),
    FormatError (no bundle), DamagedError (cut within the manifest), TrustError (another id).
    """
    with open_bundle(bundle, digest) as reader:
        return Inspection(reader.digest, reader.manifest, reader.manifest_bytes)
