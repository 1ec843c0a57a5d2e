"""Folders and files that anybody may have made: looked at without waiting, and without end."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator
from functools import cache
from pathlib import Path

PYTHON_CACHE = "__pycache__"
"""Where Python keeps what it compiled of the files beside it."""


def entries(folder: Path) -> list[Path]:
    """What is in a folder, sorted; nothing if there is none, or it may not be read."""
    try:
        return [folder / name for name in sorted(os.listdir(folder))]
    except OSError:
        return []


def names_in(folder: Path) -> list[str]:
    """What is in a folder, in no order; nothing if there is none. Raises OSError otherwise."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def files_below(folder: Path, without: Collection[str] = ()) -> Iterator[Path]:
    """All below a folder that is no folder itself; folders that are only linked to are left out.

    Such links may lead anywhere, and round in circles. So are folders that are called as one of
    `without`, and what may not be read.
    """
    return (folder / name for name in names_below(folder, without))


def names_below(folder: Path, without: Collection[str] = ()) -> Iterator[str]:
    """The same as text, each by the way from `folder`: of many files it takes far less time."""
    return (name for name, is_link in _below(folder, without) if not is_link)


def paths_below(folder: Path, without: Collection[str] = ()) -> Iterator[Path]:
    """The same as `files_below` with links to folders; nothing behind them."""
    return (folder / name for name, _ in _below(folder, without))


def _below(folder: Path, without: Collection[str]) -> Iterator[tuple[str, bool]]:
    """What is no folder itself, and whether it is a link to one."""
    todo = [""]  # Not os.walk, which calls itself for each folder in a folder.
    while todo:
        inner = todo.pop()
        deeper = []
        for entry in _scanned(os.path.join(folder, inner)):
            name = f"{inner}{entry.name}"
            is_link = entry.is_symlink()
            is_folder = os.path.isdir(entry) if is_link else entry.is_dir()
            if is_folder and entry.name in without:
                continue
            if is_folder and not is_link:
                deeper.append(f"{name}/")
            else:
                yield name, is_folder
        todo += reversed(deeper)


def _scanned(folder: str) -> list[os.DirEntry[str]]:
    """As `entries`."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError:
        return []


def state_at(path: Path | str) -> os.stat_result | None:
    """What stands at a path itself, which may be a link; None if nothing does. Raises OSError."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def states_below(root: Path) -> Callable[[str], os.stat_result | None]:
    """`state_at` for many paths below `root`: nothing is asked about what is in no folder.

    What it finds of folders it keeps: it is good as long as nothing changes there.
    """

    @cache
    def is_there(folder: str) -> bool:
        return state_at(os.path.join(root, folder)) is not None

    def at(path: str) -> os.stat_result | None:
        folder = path.rpartition("/")[0]
        return state_at(os.path.join(root, path)) if is_there(folder) else None

    return at


def is_link(path: Path | str) -> bool:
    """Whether a link stands there; unlike os.path.islink, raises OSError if that cannot be told."""
    state = state_at(path)
    return state is not None and stat.S_ISLNK(state.st_mode)


def start_of(path: Path, size: int, folder: int | None = None) -> bytes:
    """The first `size` bytes of a file. Raises OSError, also for what is no regular file.

    `folder`: a handle of the one that it is in, and of which no link in its place is followed.
    """
    # A pipe would be waited for until somebody writes into it.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    if folder is None:
        handle = os.open(path, flags)
    else:
        handle = os.open(path.name, flags | os.O_NOFOLLOW, dir_fd=folder)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "no file", str(path))
        return file.read(size)


def existing(path: Path) -> Path:
    """`path`, or what there is of it, as far as that can be seen."""
    for place in (path, *path.parents):
        try:
            place.stat()
        except OSError:
            continue
        return place
    return path
