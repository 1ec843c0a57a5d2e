"""Volumes and their lists made byte by byte, so that tests can make wrong ones."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from bundle_builder import assembled, manifest_of, model_record, parts_of

NAME = "b.tar.zst"
FILES = {
    "config.json": b'{"model_type": "made-up"}\n',
    "a.bin": random.Random(1).randbytes(12_000),
    "b.bin": random.Random(2).randbytes(6_000),
}
"""Of which a bundle is hardly smaller."""


def bundle_of(files: dict[str, bytes]) -> tuple[bytes, str]:
    """A bundle, and its id."""
    manifest = manifest_of(model_record(files))
    id_ = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    return assembled(parts_of(manifest, tuple(files.values()))), id_


BUNDLE, ID = bundle_of(FILES)
OTHER_BUNDLE, OTHER_ID = bundle_of({**FILES, "b.bin": random.Random(3).randbytes(6_000)})


def cut(content: bytes, count: int) -> list[bytes]:
    """`content` in `count` parts, all but the last of one size."""
    size = -(-len(content) // count)
    return [content[start : start + size] for start in range(0, len(content), size)]


def parts_at(content: bytes, cuts: Sequence[int]) -> list[bytes]:
    """`content`, cut at these positions."""
    return [content[a:b] for a, b in pairwise([0, *sorted(cuts), len(content)])]


def list_of(
    parts: Sequence[bytes], id_: str = ID, name: str = NAME, lines: Sequence[str] | None = None
) -> bytes:
    """The list of these volumes, or one with other `lines`."""
    head = f"\n# bundler volumes 1\n# bundle {id_}\n"
    text = (head + "".join(lines_of(parts, name) if lines is None else lines)).encode()
    return struct.pack("<II", 0x184D2A53, len(text)) + text


def lines_of(parts: Sequence[bytes], name: str = NAME) -> Iterator[str]:
    """What a list says of each volume."""
    for number, part in enumerate(parts):
        sha256 = hashlib.sha256(part).hexdigest()
        yield f"# size {len(part)}\n{sha256}  {name}.{number:03}\n"


def write_set(
    folder: Path, parts: Sequence[bytes], id_: str = ID, *, only: Sequence[int] | None = None
) -> Path:
    """Put volumes, all or `only` some, and their list into a folder; gives the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(parts):
        if only is None or number in only:
            (folder / f"{NAME}.{number:03}").write_bytes(part)
    (folder / f"{NAME}.volumes").write_bytes(list_of(parts, id_))
    return folder
