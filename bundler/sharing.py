"""The same content at a second place: a clone, a hard link, a symbolic link or a copy."""

from __future__ import annotations

import fcntl
import os
import sys
from enum import Enum
from pathlib import Path
from typing import BinaryIO

SHARED_FROM = 1 << 20
"""Bytes; smaller files are always copied, so that editing one changes no other place."""
_FICLONE = 0x40049409
"""Linux' request to share the blocks of a file: ioctl_ficlonerange(2)."""


class LinkMode(str, Enum):
    """How plain folders get the large files that a cache holds too.

    `auto`: cloned where the file system can, else hard-linked, else copied.
    """

    AUTO = "auto"
    CLONE = "clone"
    HARDLINK = "hardlink"
    SYMLINK = "symlink"
    COPY = "copy"

    def shares(self, size: int) -> bool:
        """Whether a file of `size` bytes is to take no space of its own."""
        return self is not LinkMode.COPY and size >= SHARED_FROM


def clone(source: BinaryIO, target: BinaryIO) -> bool:
    """Let the empty file `target` have the blocks of `source`; False if that cannot be done."""
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError:
        return False
    return True


def hard_link(source: str | Path, name: str | Path, folder: int | None = None) -> bool:
    """Give the file at the path `source` the further name `name`, in the folder of that handle."""
    try:
        os.link(source, name, dst_dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return True
