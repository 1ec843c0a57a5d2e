"""Folders below one root, opened step by step without following a link."""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bundler.errors import TargetError
from bundler.lock import drop_lock, is_still, take_lock
from bundler.new_folder import make_folder
from bundler.relative import RelativePath

STAGING = RelativePath(".locks/bundler")
"""Where bundler works below each root; scanners of a Hugging Face cache skip `.locks` alone."""
ALIKE = "as some do if only capital letters or accents differ: unpack elsewhere"
"""What is to be said of two names that are one."""
_ROOT = RelativePath()
_KEPT_OPEN = 64
_MANY = 100
"""Files and folders from which on the whole file system is synced at once."""
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Folders:
    """Handles of the folders below `root`. The root itself may be reached through links.

    Whoever can write to a folder on the way could put a link there; working with handles, opened
    with O_NOFOLLOW, means that nothing is ever written where such a link points.
    """

    def __init__(self, root: Path) -> None:
        """Open `root`, made if missing. Raises OSError."""
        self.root = root
        self.made = make_folder(root)
        """What was missing of the root, and is there now: the root first."""
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open: OrderedDict[RelativePath, int] = OrderedDict()
        self._changed: set[RelativePath] = set()

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
        return is_still(self._root, self.root)

    def handle(self, folder: RelativePath) -> int:
        """A handle of `folder`, made if missing; good until the next call.

        Raises TargetError if a link or a file is in the way, and OSError.
        """
        if folder in self._open:
            self._open.move_to_end(folder)
            return self._open[folder]
        if not folder.parts:
            return self._root
        if folder.name == "..":
            raise TargetError(f"{self.root / folder} leads out of {self.root}")
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

    def create(self, path: RelativePath) -> int:
        """A file at `path`, where nothing may be, opened for writing.

        Raises OSError, and TargetError if the file system takes the name and another one for one.
        So does all below that puts something where nothing may be.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        folder = path.parent
        try:
            file = os.open(path.name, flags, 0o666, dir_fd=self.handle(folder))
        except FileExistsError:
            raise self._taken(path) from None
        self._changed.add(folder)
        return file

    @contextmanager
    def new_file(self, path: RelativePath) -> Iterator[BinaryIO]:
        """A file to write at `path`, where nothing may be; on disk when the block ends."""
        with open(self.create(path), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())

    def open(self, path: RelativePath) -> BinaryIO:
        """The file at `path`, for reading."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        return open(os.open(path.name, flags, dir_fd=self.handle(path.parent)), "rb")

    def symlink(self, text: str, path: RelativePath) -> None:
        """A link at `path`, where nothing may be, that says `text`."""
        folder = path.parent
        try:
            os.symlink(text, path.name, dir_fd=self.handle(folder))
        except FileExistsError:
            raise self._taken(path) from None
        self._changed.add(folder)

    def link(self, source: RelativePath, target: RelativePath) -> None:
        """Give the file at `source` the further name `target`, where nothing may be."""
        origin = os.dup(self.handle(source.parent))
        try:
            goal = self.handle(target.parent)
            os.link(source.name, target.name, src_dir_fd=origin, dst_dir_fd=goal)
        except FileExistsError:
            raise self._taken(target) from None
        finally:
            os.close(origin)
        self._changed.add(target.parent)

    def move_new(self, source: RelativePath, target: RelativePath) -> None:
        """Put the file at `source` where nothing may be."""
        try:
            self.link(source, target)
        except OSError:
            self.rename(source, target)  # It has no links.
        else:
            self.remove(source)

    def _taken(self, path: RelativePath) -> TargetError:
        """That something is at `path` already, where nothing may be."""
        return TargetError(
            f"the file system of {self.root} takes {path.name!r} and another name that goes "
            f"there for one, {ALIKE}"
        )

    def rename(self, source: RelativePath, target: RelativePath) -> None:
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

    def remove(self, path: RelativePath) -> None:
        """Remove the file at `path`."""
        os.unlink(path.name, dir_fd=self.handle(path.parent))
        self._changed.add(path.parent)

    def take_out(self, folder: RelativePath, target: RelativePath) -> None:
        """Let what stands at `folder` vanish, by one rename to `target`."""
        self.rename(folder, target)
        self._changed.add(folder.parent)

    def remove_all(self, path: RelativePath) -> None:
        """Remove what stands there; a folder with all that is in it."""
        parent = self.handle(path.parent)  # Refuses a link on the way.
        if stat.S_ISDIR(os.stat(path.name, dir_fd=parent, follow_symlinks=False).st_mode):
            self._close(path)
            self._changed = {
                other for other in self._changed if path not in (other, *other.parents)
            }
            with not_too_deep(self.root / path):
                _remove_tree(path.name, parent)
            self._changed.add(path.parent)
        else:
            self.remove(path)

    def remove_if_empty(self, folder: RelativePath) -> None:
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

    def _close(self, folder: RelativePath) -> None:
        """Close the handles of what is at `folder` and below."""
        for path in [path for path in self._open if folder in (path, *path.parents)]:
            os.close(self._open.pop(path))

    def sync(self, files: Collection[RelativePath] = (), below: RelativePath = _ROOT) -> None:
        """Make every change so far outlast a loss of power, and `files`, content and names.

        Their paths are those below the folder `below`.
        """
        if len(files) + len(self._changed) < _MANY or not sync_disk(self._root):
            for path in files:
                with self.open(below / path) as file:
                    os.fsync(file.fileno())
            for folder in self._changed.union((below / path).parent for path in files):
                os.fsync(self.handle(folder))
        self._changed.clear()


@contextmanager
def not_too_deep(folder: Path) -> Iterator[None]:
    """Turn the end of Python's patience with folders in folders into a TargetError."""
    try:
        yield
    except RecursionError:
        raise TargetError(
            f"{folder} has folders in folders without end: remove it (rm -r)"
        ) from None


def _remove_tree(name: str, above: int) -> None:
    """Remove the folder of that name, below the one with the handle `above`, and all in it.

    Whatever is moved about in it meanwhile, links are not followed. Raises OSError.
    """
    for _, folders, files, handle in os.fwalk(name, topdown=False, dir_fd=above):
        for file in files:
            os.unlink(file, dir_fd=handle)
        for folder in folders:
            try:
                os.rmdir(folder, dir_fd=handle)
            except NotADirectoryError:
                os.unlink(folder, dir_fd=handle)  # A link to one.
    os.rmdir(name, dir_fd=above)


def sync_disk(handle: int) -> bool:
    """Sync the whole file system that a handle is on, syncfs(2); False where there is no such call.

    For many files that is far quicker than one after the other. Raises OSError.
    """
    import ctypes  # Takes a while, and few need it.

    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        return False
    if syncfs(handle) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return True
