"""Folders below one root, opened step by step without following a link."""

from __future__ import annotations

import errno
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from bundler.errors import TargetError
from bundler.lock import drop_lock, take_lock

STAGING = PurePosixPath(".locks/bundler")
"""Where bundler works below each root; scanners of a Hugging Face cache skip `.locks` alone."""
_KEPT_OPEN = 64
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Folders:
    """Handles of the folders below `root`. The root itself may be reached through links.

    Whoever can write to a folder on the way could put a link there; working with handles, opened
    with O_NOFOLLOW, means that nothing is ever written where such a link points.
    """

    def __init__(self, root: Path) -> None:
        """Open `root`, made if missing. Raises OSError."""
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open: OrderedDict[PurePosixPath, int] = OrderedDict()
        self._changed: set[PurePosixPath] = set()

    def __enter__(self) -> Folders:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._open.values():
            os.close(handle)
        self._open.clear()
        drop_lock(self._root)
        os.close(self._root)

    def lock(self, on_wait: Callable[[], None] | None = None) -> None:
        """Take the lock of the root.

        If another bundler has it: calls `on_wait` and waits; raises TargetError without, and where
        the file system lets nobody wait.
        """
        try:
            take_lock(self._root)
        except BlockingIOError:
            try:
                if on_wait is None:
                    raise
                on_wait()
                take_lock(self._root, wait=True)
            except BlockingIOError:
                raise TargetError(
                    f"another bundler is writing to {self.root}: wait until it is done"
                ) from None

    @property
    def is_there(self) -> bool:
        """Whether `root` is still the folder that was opened, and not removed or replaced."""
        try:
            return os.path.samestat(os.fstat(self._root), os.stat(self.root))
        except FileNotFoundError:
            return False

    def handle(self, folder: PurePosixPath) -> int:
        """A handle of `folder`, made if missing; good until the next call.

        Raises TargetError if a link or a file is in the way, and OSError.
        """
        if not folder.parts:
            return self._root
        if folder.name == "..":
            raise TargetError(f"{self.root / folder} leads out of {self.root}")
        if folder in self._open:
            self._open.move_to_end(folder)
            return self._open[folder]
        parent = self.handle(folder.parent)
        try:
            handle = os.open(folder.name, _FLAGS, dir_fd=parent)
        except FileNotFoundError:
            os.mkdir(folder.name, dir_fd=parent)
            self._changed.add(folder.parent)
            handle = os.open(folder.name, _FLAGS, dir_fd=parent)
        except NotADirectoryError:
            raise TargetError(
                f"{self.root / folder} is a link or a file where a folder belongs: move it away"
            ) from None
        if len(self._open) >= _KEPT_OPEN:
            os.close(self._open.popitem(last=False)[1])
        self._open[folder] = handle
        return handle

    @contextmanager
    def new_file(self, path: PurePosixPath) -> Iterator[BinaryIO]:
        """A file to write at `path`, where nothing may be; on disk when the block ends."""
        parent = self.handle(path.parent)

        def opener(name: str, flags: int) -> int:
            return os.open(name, flags | os.O_EXCL | os.O_NOFOLLOW, 0o666, dir_fd=parent)

        with open(path.name, "wb", opener=opener) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())

    def rename(self, source: PurePosixPath, target: PurePosixPath) -> None:
        """Put what stands at `source` in the place of `target`, atomically."""
        # A duplicate, since opening the second folder may close the first handle.
        origin = os.dup(self.handle(source.parent))
        try:
            goal = self.handle(target.parent)
            os.rename(source.name, target.name, src_dir_fd=origin, dst_dir_fd=goal)
        finally:
            os.close(origin)
        self._close(source)  # It is elsewhere now.
        self._changed.add(target.parent)

    def remove(self, path: PurePosixPath) -> None:
        """Remove the file at `path`."""
        os.unlink(path.name, dir_fd=self.handle(path.parent))
        self._changed.add(path.parent)

    def take_out(self, folder: PurePosixPath, target: PurePosixPath) -> None:
        """Let what stands at `folder` vanish, by one rename to `target`."""
        self.rename(folder, target)
        self._changed.add(folder.parent)

    def remove_all(self, folder: PurePosixPath) -> None:
        """Remove the folder with all that is in it."""
        self.handle(folder)  # Refuses a link on the way.
        self._close(folder)
        self._changed = {path for path in self._changed if folder not in (path, *path.parents)}
        shutil.rmtree(self.root / folder)
        self._changed.add(folder.parent)

    def remove_if_empty(self, folder: PurePosixPath) -> None:
        """Remove the folder if it is there, with nothing in it."""
        if not (self.root / folder).is_dir() or (self.root / folder).is_symlink():
            return
        self._close(folder)
        try:
            os.rmdir(folder.name, dir_fd=self.handle(folder.parent))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                raise
        else:
            self._changed.discard(folder)
            self._changed.add(folder.parent)

    def _close(self, folder: PurePosixPath) -> None:
        """Close the handles of what is at `folder` and below."""
        for path in [path for path in self._open if folder in (path, *path.parents)]:
            os.close(self._open.pop(path))

    def sync(self) -> None:
        """Make every rename and removal so far outlast a loss of power."""
        for folder in self._changed:
            os.fsync(self.handle(folder))
        self._changed.clear()
