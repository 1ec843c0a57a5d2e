"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from bundler.errors import TargetError
from bundler.lock import take_lock
from bundler.permission import told


@contextmanager
def whole_file(path: Path, *, wait: bool = False) -> Iterator[BinaryIO]:
    """A file to write that takes the name `path` when it is whole and on disk.

    Until then it is a draft beside it, held by one process at a time; a killed one's is used again.
    If another process writes the same file: waits for it, or raises TargetError without `wait`.
    Raises OSError, which names `path`.
    """
    with held_draft(path, wait=wait) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
        os.replace(draft_of(path), path)
    sync_folder(path.parent)


def draft_of(path: Path) -> Path:
    """What a file that is to be at `path` is called as long as it is not whole."""
    return path.with_name(f".{path.name}.bundler-part")


@contextmanager
def held_draft(path: Path, *, wait: bool = False) -> Iterator[BinaryIO]:
    """The draft of a file, to write and then to rename; one that raises an error is removed.

    Raises as `whole_file` does.
    """
    draft = draft_of(path)
    try:
        with _held(draft, wait) as file:
            yield file
    except BaseException as error:
        _remove_if_free(draft)
        if isinstance(error, OSError) and error.filename in (draft, str(draft)):
            error.filename = str(path)
        raise


def sync_folder(folder: Path) -> None:
    """Return when the names in `folder` are on disk. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_if_free(draft: Path) -> None:
    """Remove a draft that no process holds."""
    with suppress(OSError):
        handle = os.open(draft, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            take_lock(handle)
            state = os.fstat(handle)
            if stat.S_ISREG(state.st_mode) and os.path.samestat(state, draft.stat()):
                os.unlink(draft)
        finally:
            os.close(handle)


@contextmanager
def _held(draft: Path, wait: bool) -> Iterator[BinaryIO]:
    """The draft, emptied, and locked as long as it is open."""
    while True:
        handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
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
            if draft.exists() and os.path.samestat(state, draft.stat()):
                os.ftruncate(handle, 0)
                yield file
                return


def write_text(path: Path, content: str, option: str) -> None:
    """Put a small file at `path`, whole or not at all; folders are made.

    Raises TargetError, with `option` as the way to name another place.
    """
    with told(path.parent, option):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, wait=True) as file:
            with suppress(FileNotFoundError):
                # Whoever could read what stood there can still.
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            file.write(os.fsencode(content))
