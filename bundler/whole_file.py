"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from bundler.errors import TargetError
from bundler.lock import is_still, take_lock
from bundler.new_folder import make_folder, remove_empty
from bundler.permission import told


@contextmanager
def whole_file(path: Path, *, wait: bool = False, folder: int | None = None) -> Iterator[BinaryIO]:
    """A file to write that takes the name `path` when it is whole and on disk.

    Until then it is a draft beside it, held by one process at a time; a killed one's is used again,
    but not one that somebody else made, or that has another name too: that may be anybody's file.
    `folder`: a handle of the one that `path` is in, which is not looked up by its path then. If
    another process writes the same file: waits for it, or raises TargetError without `wait`. Raises
    OSError, which names `path`.
    """
    with held_draft(path, wait=wait, folder=folder) as (file, handle):
        yield file
        file.flush()
        os.fsync(file.fileno())
        os.replace(draft_of(path).name, path.name, src_dir_fd=handle, dst_dir_fd=handle)
        os.fsync(handle)


def draft_of(path: Path) -> Path:
    """What a file that is to be at `path` is called as long as it is not whole."""
    return path.with_name(f".{path.name}.bundler-part")


@contextmanager
def held_draft(
    path: Path, *, wait: bool = False, folder: int | None = None
) -> Iterator[tuple[BinaryIO, int]]:
    """The draft of a file, to write and then to rename, and a handle of the folder that it is in.

    One that raises an error is removed. The rest is as in `whole_file`.
    """
    draft = draft_of(path)
    with ExitStack() as stack:
        try:
            if folder is None:
                folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, folder)
            with _held(draft, folder, wait) as file:
                yield file, folder
        except BaseException as error:
            if folder is not None:
                _remove_if_free(draft.name, folder)
            if isinstance(error, OSError) and error.filename in (draft, str(draft), draft.name):
                error.filename = str(path)
            raise


def _remove_if_free(draft: str, folder: int) -> None:
    """Remove a draft that no process holds."""
    with suppress(OSError):
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        handle = os.open(draft, flags, dir_fd=folder)
        try:
            take_lock(handle)
            if stat.S_ISREG(os.fstat(handle).st_mode) and is_still(handle, draft, folder):
                os.unlink(draft, dir_fd=folder)
        finally:
            os.close(handle)


@contextmanager
def _held(draft: Path, folder: int, wait: bool) -> Iterator[BinaryIO]:
    """The draft, emptied, and locked as long as it is open."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    is_new = False
    while True:
        try:
            exclusive = os.O_EXCL if is_new else 0
            handle = os.open(draft.name, flags | exclusive, 0o666, dir_fd=folder)
        except FileExistsError:
            if not is_new:
                raise
            is_new = False
            continue
        with open(handle, "wb") as file:
            try:
                take_lock(handle, wait=wait)
            except BlockingIOError:
                raise TargetError(
                    f"another bundler is writing {draft}: wait until it is done"
                ) from None
            state = os.fstat(handle)
            if not stat.S_ISREG(state.st_mode):
                raise OSError(errno.EEXIST, "not a file", str(draft))
            # Whoever held it may have renamed or removed it before this process had the lock.
            if not is_still(handle, draft.name, folder):
                continue
            # What is written to it could be changed, or change what is elsewhere.
            if not is_new and (state.st_uid != os.geteuid() or state.st_nlink > 1):
                os.unlink(draft.name, dir_fd=folder)
                is_new = True
                continue
            os.ftruncate(handle, 0)
            yield file
            return


def write_text(
    path: Path, content: str | Iterable[str], option: str, folder: int | None = None
) -> None:
    """Put a file with a text, which may come in pieces, at `path`, whole or not at all.

    Folders are made. `folder` is as in `whole_file`. Raises TargetError, with `option` as the way
    to name another place.
    """
    if folder is None and path.is_dir():
        raise TargetError(f"{path} is a folder: name a file with {option}")
    with told(path.parent, option):
        made = make_folder(path.parent) if folder is None else []
        try:
            with whole_file(path, wait=True, folder=folder) as file:
                with suppress(FileNotFoundError):
                    state = os.stat(
                        path if folder is None else path.name, dir_fd=folder, follow_symlinks=False
                    )
                    # Whoever could read what stood there can still. Who could write to it may have
                    # put it there for that.
                    if stat.S_ISREG(state.st_mode):
                        is_own = state.st_uid == os.geteuid()
                        kept = state.st_mode & (0o775 if is_own else 0o444)
                        usual = 0 if is_own else stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                        os.fchmod(file.fileno(), kept | usual)
                for piece in [content] if isinstance(content, str) else content:
                    file.write(os.fsencode(piece))
        except BaseException:
            remove_empty(made)
            raise
