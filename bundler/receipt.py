"""What an unpack installed, kept on the target so that later runs need not read it all again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from bundler.digest import Blob, Digest
from bundler.errors import TargetError
from bundler.names import relative_path
from bundler.whole_file import told, write_text

_VERSION = 1


@dataclass(frozen=True, slots=True)
class InstalledFile:
    """One file that stands as the bundle says. `root` is what `Roots.kept_as` gives."""

    root: str
    path: PurePosixPath
    blob: Blob
    mtime_ns: int
    """The file's time of change when it was known to hold the blob: another one means doubt."""
    found: bool
    """It stood there before bundler came."""


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """One snapshot that was installed, by the fields that name it in a manifest."""

    source: str
    name: str
    aliases: tuple[str, ...]
    revision: str | None
    commit_hash: str | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was installed of one bundle. `links` and `texts` are (root, path)."""

    bundle: Digest
    models: tuple[InstalledModel, ...]
    files: tuple[InstalledFile, ...]
    links: tuple[tuple[str, PurePosixPath], ...]
    texts: tuple[tuple[str, PurePosixPath], ...]

    def merged(self, earlier: Receipt | None) -> Receipt:
        """This receipt and what an earlier unpack of the same bundle installed."""
        if earlier is None:
            return self
        # What bundler wrote the first time was there the second time, and is still its own.
        own = {(file.root, file.path) for file in earlier.files if not file.found}
        files = {(file.root, file.path): file for file in earlier.files}
        for file in self.files:
            key = (file.root, file.path)
            files[key] = replace(file, found=file.found and key not in own)
        return Receipt(
            self.bundle,
            tuple(dict.fromkeys(earlier.models + self.models)),
            tuple(files.values()),
            tuple(dict.fromkeys(earlier.links + self.links)),
            tuple(dict.fromkeys(earlier.texts + self.texts)),
        )


def _folder(hf_home: Path) -> Path:
    return hf_home / ".bundler" / "receipts"


def receipt_path(hf_home: Path, bundle: Digest) -> Path:
    """Where the receipt of `bundle` is kept."""
    return _folder(hf_home) / f"{bundle.hex}.json"


def read_receipts(hf_home: Path) -> Iterator[Receipt]:
    """Every receipt below `hf_home`; what is none counts as absent. Raises TargetError."""
    folder = _folder(hf_home)
    try:
        for place in (hf_home, folder.parent, folder):
            if place.exists() and not place.is_dir():
                raise TargetError(f"{place} is a file where a folder belongs: move it away")
        for path in sorted(folder.glob("*.json")):
            receipt = _from_json(path.read_bytes())
            if receipt is not None:
                yield receipt
    except OSError as error:
        raise TargetError(f"cannot read {folder}: {error.strerror}") from None


def write_receipt(hf_home: Path, receipt: Receipt) -> None:
    """Keep `receipt`, merged with an earlier one of the same bundle. Raises TargetError."""
    path = receipt_path(hf_home, receipt.bundle)
    with told(path.parent, "--root"):
        earlier = _from_json(path.read_bytes()) if path.is_file() else None
    write_text(path, _to_json(receipt.merged(earlier)), "--root")


def _to_json(receipt: Receipt) -> str:
    document = {
        "receipt_version": _VERSION,
        "bundle": str(receipt.bundle),
        "models": [
            {
                "source": model.source,
                "name": model.name,
                "aliases": model.aliases,
                "revision": model.revision,
                "commit_hash": model.commit_hash,
            }
            for model in receipt.models
        ],
        "files": [
            {
                "root": file.root,
                "path": str(file.path),
                "digest": str(file.blob.digest),
                "size": file.blob.size,
                "mtime_ns": file.mtime_ns,
                "found": file.found,
            }
            for file in receipt.files
        ],
        "links": [[root, str(path)] for root, path in receipt.links],
        "texts": [[root, str(path)] for root, path in receipt.texts],
    }
    return json.dumps(document, indent=1) + "\n"


def _from_json(content: bytes) -> Receipt | None:
    try:
        document = json.loads(content)
        if document["receipt_version"] != _VERSION:
            return None
        return Receipt(
            Digest.parse(document["bundle"]),
            tuple(
                InstalledModel(
                    model["source"],
                    model["name"],
                    tuple(str(alias) for alias in model["aliases"]),
                    model["revision"],
                    model["commit_hash"],
                )
                for model in document["models"]
            ),
            tuple(
                InstalledFile(
                    str(file["root"]),
                    relative_path(file["path"]),
                    Blob(Digest.parse(file["digest"]), int(file["size"])),
                    int(file["mtime_ns"]),
                    bool(file["found"]),
                )
                for file in document["files"]
            ),
            _paths(document["links"]),
            _paths(document["texts"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None


def _paths(items: Any) -> tuple[tuple[str, PurePosixPath], ...]:
    return tuple((str(root), relative_path(path)) for root, path in items)
