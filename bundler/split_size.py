"""How large the volumes of a bundle are to be, and whether they can be."""

from __future__ import annotations

import errno
import os
import re
import sys
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO, Literal

from bundler.errors import RequestError, amount, shown
from bundler.volume_list import MAX_VOLUMES, is_plain_name
from bundler.whole_file import draft_of, held_draft

SplitSize = int | Literal["auto"]
"""Bytes of a volume; or as many as a file can have where it goes, and no volumes if that is enough
for the bundle."""
_FAT_LIMIT = (4 << 30) - (1 << 20)
"""Bytes of a file. A directory entry of FAT has 32 bits for its size, but fsck.fat 4.2 also counts
the bytes of all its clusters in as many, and cuts a file to nothing where that is 4 GiB."""
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(?:(|[kmgt]|[kmgt]i)b)?", re.IGNORECASE)


def parsed_size(text: str) -> SplitSize:
    """What `4GB`, `4GiB`, `700MB`, bytes as digits and `auto` mean. Raises RequestError."""
    if text == "auto":
        return "auto"
    found = _SIZE.fullmatch(text)
    if found is None:
        raise RequestError(f"--split-size {text} is no size: say 4GB, 4GiB, 700MB, or auto")
    unit = (found[2] or "").lower()
    factor = (1024 if unit.endswith("i") else 1000) ** " kmgt".index(unit[:1] or " ")
    return int(Decimal(found[1]) * factor)


def check_split(path: Path, size: SplitSize) -> None:
    """Refuse, before anything is written, volumes that cannot be.

    Raises RequestError and OSError, and TargetError if another process writes there.
    """
    if path.exists() and not path.is_file():
        raise RequestError(f"{path} is no file, and cannot be split: leave --split-size away")
    if not is_plain_name(path.name):
        raise RequestError(
            f"a list of volumes cannot have the name {shown(path.name)}: name one without "
            "backslash and control characters, of at most 250 bytes"
        )
    if size == "auto":
        return
    if size < 1:
        raise RequestError("volumes of no bytes cannot be: say --split-size 4GB")
    if _is_too_large(path, size):
        raise RequestError(
            f"{path.parent} holds no file of more than {_FAT_LIMIT:,} bytes, as it is FAT: "
            "say --split-size 4GB"
        )


def check_whole(path: Path, size: int) -> None:
    """Refuse, before anything is written, a file of so many bytes that cannot be.

    Raises OSError, the same as writing it would, and TargetError if another process writes there.
    """
    if _is_too_large(path, size):
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))


def _is_too_large(path: Path, size: int) -> bool:
    if size <= _FAT_LIMIT:
        return False
    with held_draft(path) as (draft, _):
        limit = file_limit(draft)
        os.unlink(draft_of(path))
    return size > limit


def check_count(bundle_size: int, size: SplitSize) -> None:
    """Raise RequestError if so many bytes take too many volumes."""
    if size != "auto" and bundle_size > size * MAX_VOLUMES:
        raise too_many(size)


def file_limit(file: BinaryIO) -> int:
    """Bytes that a file can have where `file` is, as far as its file system says."""
    try:
        # lseek(2), EINVAL: beyond what the file system can have. Linux compares.
        os.lseek(file.fileno(), 4 << 30, os.SEEK_SET)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return _FAT_LIMIT
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    return sys.maxsize


def too_many(size: int) -> RequestError:
    """What to say when volumes of `size` bytes are too many."""
    return RequestError(
        f"a bundle has at most {MAX_VOLUMES:,} volumes, and it takes more of {amount(size)}: "
        "say a larger --split-size"
    )
