"""How large the volumes of a bundle are to be, and whether they can be."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Literal

from bundler.errors import RequestError, amount, shown
from bundler.file_limit import FAT_LIMIT, can_hold
from bundler.volume_list import MAX_VOLUMES, is_plain_name

SplitSize = int | Literal["auto"]
"""Bytes of a volume; or as many as a file can have where it goes, and no volumes if that is enough
for the bundle."""
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
    """Refuse, before anything is written, volumes that cannot be. Raises RequestError, OSError."""
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
    if not can_hold(path.parent, size):
        raise RequestError(
            f"{path.parent} holds no file of more than {FAT_LIMIT:,} bytes, as it is FAT: "
            "say --split-size 4GB"
        )


def check_count(bundle_size: int, size: SplitSize) -> None:
    """Raise RequestError if so many bytes take too many volumes."""
    if size != "auto" and bundle_size > size * MAX_VOLUMES:
        raise too_many(size)


def too_many(size: int) -> RequestError:
    """What to say when volumes of `size` bytes are too many."""
    return RequestError(
        f"a bundle has at most {MAX_VOLUMES:,} volumes, and it takes more of {amount(size)}: "
        "say a larger --split-size"
    )
