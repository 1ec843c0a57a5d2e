"""The lock of an open file, by which one process at a time works on something."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path


def take_lock(file: int, *, wait: bool = False) -> None:
    """Take the lock of the file or folder with this handle, or do without where there are none.

    Some network file systems have none. If another process has it: waits for that to end, or raises
    BlockingIOError without `wait`, and on file systems where nobody can wait.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF):
            raise


def is_still(file: int, path: Path | str, folder: int | None = None) -> bool:
    """Whether `path` leads to this open file or folder.

    `folder`: a handle of the one in which `path` is a name, where a link does not count. Whoever
    had the lock may have removed or replaced it before this process got that.
    """
    try:
        state = os.stat(path, dir_fd=folder, follow_symlinks=folder is None)
        return os.path.samestat(os.fstat(file), state)
    except FileNotFoundError:
        return False


def drop_lock(file: int) -> None:
    """Give the lock back before the handle is closed.

    Closing alone would not: a child that another thread has just started may hold a copy of it.
    """
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)
