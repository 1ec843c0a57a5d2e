"""What stands on this machine, by its digest: what receipts vouch for, and what caches call by it.

The cache of huggingface_hub names large content by upstream's sha256: such a file is what its name
says, whoever downloaded it, until its bytes tell otherwise.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bundler.digest import SHA256, Blob, Digest
from bundler.environment import Roots, find_roots
from bundler.receipt import Receipt
from bundler.receipt_folder import read_receipts


def holdings(roots: Roots | None = None) -> frozenset[Blob]:
    """The blobs that stand below `roots`, by default those that the libraries use here.

    Looks at names, sizes and times of change only: a file that was changed since it was unpacked is
    not among them. Raises TargetError if the receipts cannot be read.
    """
    roots = roots or find_roots()
    standing = (
        blob
        for blob, path, mtime_ns in _claimed(roots, read_receipts(roots.hf_home))
        if _stands(path, blob, mtime_ns)
    )
    return frozenset(standing)


def places_of(
    wanted: Container[Blob], roots: Roots, receipts: Iterable[Receipt]
) -> Mapping[Digest, Sequence[Path]]:
    """The files below `roots` that may hold the blobs `wanted`, by name and size alone."""
    places: dict[Digest, dict[Path, None]] = defaultdict(dict)
    for blob, path, _ in _claimed(roots, receipts):
        if blob in wanted and _stands(path, blob, None):
            places[blob.digest][path] = None
    return {digest: tuple(paths) for digest, paths in places.items()}


def _claimed(roots: Roots, receipts: Iterable[Receipt]) -> Iterator[tuple[Blob, Path, int | None]]:
    """What is said to be where, and when it was changed last, if that is known."""
    for receipt in receipts:
        for model in receipt.models:
            for file in model.files:
                yield file.blob, roots.kept_at(file.root) / file.path, file.mtime_ns
    for repository in _listed(roots.hub):
        for blob in _listed(f"{repository.path}/blobs"):
            if SHA256.fullmatch(blob.name):
                with suppress(OSError):
                    yield Blob(Digest(blob.name), blob.stat().st_size), Path(blob.path), None


def _listed(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _stands(path: Path, blob: Blob, mtime_ns: int | None) -> bool:
    try:
        state = path.stat()
    except OSError:
        return False
    is_file = stat.S_ISREG(state.st_mode) and state.st_size == blob.size
    return is_file and mtime_ns in (None, state.st_mtime_ns)
