"""Folders and files that anybody may have made: looked at without waiting, and without end."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path


def entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted; nothing if there is none, or it may not be read."""
    try:
        return [folder / name for name in sorted(os.listdir(folder))]
    except OSError:
        return []


def files_below(folder: Path) -> Iterator[Path]:
    """All below a folder that is no folder itself, sorted in each.

    As programs see it: through links to folders as well, but into no folder twice.
    """
    todo = [str(folder)]
    seen = set()
    while todo:
        inner = todo.pop()
        try:
            state = os.stat(inner)
            with os.scandir(inner) as scan:
                found = sorted(scan, key=lambda entry: entry.name)
        except OSError:
            continue
        if (state.st_dev, state.st_ino) in seen:
            continue
        seen.add((state.st_dev, state.st_ino))
        for entry in found:
            if not _is_folder(entry):
                yield Path(entry.path)
        todo += [entry.path for entry in reversed(found) if _is_folder(entry)]


def start_of(path: Path, size: int) -> bytes:
    """The first `size` bytes of a file. Raises OSError, also for what is no regular file."""
    # A pipe would be waited for until somebody writes into it.
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "no file", str(path))
        return file.read(size)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
