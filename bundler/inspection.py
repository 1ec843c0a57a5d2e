"""What a bundle holds, from its first frames alone."""

from __future__ import annotations

from dataclasses import dataclass

from bundler.archive import BundleSource, open_bundle
from bundler.digest import Digest
from bundler.errors import DamagedError
from bundler.manifest import Manifest
from bundler.volumes import Ask


@dataclass(frozen=True, slots=True)
class Inspection:
    """The id and the manifest of a bundle; `manifest_bytes` are what the id is the sha256 of."""

    digest: Digest
    manifest: Manifest
    manifest_bytes: bytes
    fault: str | None
    """What is wrong with the end of the file, if that can be seen without reading it all."""

    @property
    def size(self) -> int:
        """Bytes of all blobs, uncompressed, each once."""
        return sum(blob.size for blob in self.manifest.blobs())


def inspect(
    bundle: BundleSource, *, digest: Digest | None = None, ask: Ask | None = None
) -> Inspection:
    """Read the manifest of `bundle`, and of the rest only the seek table.

    `digest` is the bundle's id, if known from elsewhere; `ask` as in `unpack`. Raises RequestError
    (no such file), UnavailableError (a volume is missing), FormatError (no bundle), DamagedError
    (cut within the manifest, a volume of the wrong size), TrustError (another id).
    """
    with open_bundle(bundle, digest, ask=ask) as reader:
        fault = None
        try:
            reader.check_end()
        except DamagedError as error:
            fault = str(error)
        return Inspection(reader.digest, reader.manifest, reader.manifest_bytes, fault)
