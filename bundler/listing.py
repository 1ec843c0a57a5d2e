"""What something holds by content: a bundle, a manifest, or the inventory of a target.

An inventory is canonical JSON like a manifest, {"blobs":{<64 hex>:<bytes>},"inventory_version":1},
and names nothing but content: no path, no model, no host.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundler.digest import Blob, Digest
from bundler.documents import strict_json
from bundler.errors import FormatError, RequestError, shown
from bundler.manifest import Manifest
from bundler.manifest_rules import (
    MAX_BLOB_SIZE,
    MAX_MANIFEST_COMMAS,
    MAX_MANIFEST_SIZE,
    has_too_many_values,
)

if TYPE_CHECKING:
    from bundler.volumes import Ask

INVENTORY_VERSION = 1


@dataclass(frozen=True, slots=True)
class Listing:
    """The blobs that something holds. `bundles`: the ids of those that brought them, if known."""

    blobs: frozenset[Blob]
    manifest: Manifest | None = None
    """Which models it has, if it tells."""
    bundles: tuple[Digest, ...] = ()

    @classmethod
    def of_needed(cls, manifest: Manifest) -> Listing:
        """What is not needed of `manifest`: what it declares to be absent."""
        return cls(
            frozenset(entry.blob for _, entry in manifest.lacking()), None, manifest.builds_on
        )


def inventory_bytes(blobs: Iterable[Blob]) -> bytes:
    """An inventory as it is written. Raises FormatError if it is longer than what is read."""
    sizes = {blob.digest.hex: blob.size for blob in blobs}
    document = {"inventory_version": INVENTORY_VERSION, "blobs": sizes}
    content = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    _check_extent(content)
    return content


def read_listing(path: Path | str, *, ask: Ask | None = None) -> Listing:
    """What the bundle, the manifest or the inventory at `path` holds.

    Of a bundle in volumes any of them will do, its folder or its name, as for `open_bundle`; `ask`
    is for one that is missing. Raises RequestError if there is no such file or it is none of these,
    and as `open_bundle` does.
    """
    # Who writes an inventory needs none of these.
    from bundler.archive import ZSTD_MAGIC, open_bundle
    from bundler.volume_files import find_volumes

    if find_volumes([Path(path)]) is not None:
        with open_bundle(path, ask=ask) as reader:
            return _of_manifest(reader.manifest, reader.digest)
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_MANIFEST_SIZE + 1)
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    if content.startswith(ZSTD_MAGIC):
        with open_bundle(path) as reader:
            return _of_manifest(reader.manifest, reader.digest)
    try:
        _check_extent(content)
        try:
            document = strict_json(content.decode())
        except (ValueError, RecursionError) as error:
            raise FormatError(f"not valid JSON: {shown(error)}") from None
        if isinstance(document, dict) and "inventory_version" in document:
            return Listing(_inventory(document))
        return _of_manifest(Manifest.from_bytes(content), Digest.of(content))
    except FormatError as error:
        raise RequestError(
            f"{path} is no bundle, no manifest (bundler inspect --json) and no inventory (bundler "
            f"inventory): {error}"
        ) from None


def _of_manifest(manifest: Manifest, digest: Digest) -> Listing:
    # What it lacks is there too, where it was unpacked.
    return Listing(frozenset(manifest.blobs()), manifest, (digest,))


def _check_extent(content: bytes) -> None:
    if len(content) > MAX_MANIFEST_SIZE or has_too_many_values(content):
        raise FormatError(
            f"it has more than {MAX_MANIFEST_SIZE:,} bytes or {MAX_MANIFEST_COMMAS:,} values"
        )


def _inventory(document: dict[str, Any]) -> frozenset[Blob]:
    version, sizes = document["inventory_version"], document.get("blobs")
    if version != INVENTORY_VERSION or isinstance(version, bool):
        raise FormatError(
            f"an inventory of version {shown(version)}, and this bundler reads version "
            f"{INVENTORY_VERSION}: use a newer bundler"
        )
    if not isinstance(sizes, dict):
        raise FormatError("'blobs' is no object")
    blobs = set()
    for hex_, size in sizes.items():
        if type(size) is not int or not 0 <= size <= MAX_BLOB_SIZE:
            raise FormatError(f"a size of {shown(size)} bytes")
        try:
            blobs.add(Blob(Digest(hex_), size))
        except ValueError as error:
            raise FormatError(str(error)) from None
    return frozenset(blobs)
