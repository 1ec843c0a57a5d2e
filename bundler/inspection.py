"""What a bundle holds, from its first frames alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bundler.archive import BundleSource, open_bundle
from bundler.digest import Digest
from bundler.errors import DamagedError
from bundler.manifest import Manifest
from bundler.trust import Trust, claimed_key
from bundler.volumes import Ask

if TYPE_CHECKING:
    from bundler.keys import PublicKey


@dataclass(frozen=True, slots=True)
class Inspection:
    """The id and the manifest of a bundle; `manifest_bytes` are what the id is the sha256 of."""

    digest: Digest
    manifest: Manifest
    manifest_bytes: bytes
    fault: str | None
    """What is wrong with the end of the file, if that can be seen without reading it all."""
    signer: PublicKey | None = None
    """The trusted key that has signed the bundle, if one had to."""
    claimed_key: str | None = None
    """Else the hint of the key that the signature names, unchecked; empty if it names none. None if
    there is no signature."""

    @property
    def size(self) -> int:
        """Bytes of all blobs, uncompressed, each once."""
        return sum(blob.size for blob in self.manifest.blobs())


def inspect(
    bundle: BundleSource,
    *,
    digest: Digest | None = None,
    trusted: Trust | None = None,
    signature: Path | str | None = None,
    ask: Ask | None = None,
) -> Inspection:
    """Read the manifest of `bundle`, and of the rest only the seek table.

    `digest` is the bundle's id, if known from elsewhere; `trusted`: whose bundles are taken, by
    default anybody's. `signature`: the file to look into without `trusted`, by default the one
    beside the bundle. `ask` as in `unpack`. Raises RequestError (no such file), UnavailableError (a
    volume is missing), FormatError (no bundle), DamagedError (cut within the manifest, a volume of
    the wrong size), TrustError (another id, not signed by whom is `trusted`).
    """
    with open_bundle(bundle, digest, trusted, ask=ask, keep_bytes=True) as reader:
        fault = None
        try:
            reader.check_end()
        except DamagedError as error:
            fault = str(error)
        claimed = None
        place = reader.signature if signature is None else Path(signature)
        if trusted is None and place is not None:
            claimed = claimed_key(place, reader.members)
        return Inspection(
            reader.digest, reader.manifest, reader.manifest_bytes, fault, reader.signer, claimed
        )
