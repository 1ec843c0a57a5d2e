"""How large a file can be where it is to go: FAT, as on sticks, holds none of 4 GiB."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from bundler.disk import existing

FAT_LIMIT = (4 << 30) - (1 << 20)
"""Bytes of a file. A directory entry of FAT has 32 bits for its size, but fsck.fat 4.2 also counts
the bytes of all its clusters in as many, and cuts a file to nothing where that is 4 GiB."""


def file_limit(folder: Path) -> int:
    """Bytes that a file can have in a folder that is or would be there, as far as that is told.

    Raises OSError.
    """
    try:
        handle = os.open(existing(folder), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return sys.maxsize  # Who may put something into a folder need not be allowed to open it.
    try:
        is_fat = _goes_to(handle, (4 << 30) - 1) and not _goes_to(handle, 4 << 30)
    finally:
        os.close(handle)
    return FAT_LIMIT if is_fat else sys.maxsize


def _goes_to(handle: int, position: int) -> bool:
    """Whether there is such a position in a folder; on FAT those of folders and files are the same.

    lseek(2), EINVAL: beyond what there can be. Other file systems have none for folders, or fewer.
    """
    try:
        os.lseek(handle, position, os.SEEK_SET)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def can_hold(folder: Path, size: int) -> bool:
    """Whether a file of so many bytes can be in a folder. Raises OSError."""
    return size <= FAT_LIMIT or size <= file_limit(folder)


def check_file(folder: Path, size: int) -> None:
    """Refuse a file of so many bytes if it cannot be in a folder.

    Raises OSError, the same as writing it would.
    """
    if not can_hold(folder, size):
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
