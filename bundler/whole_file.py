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
from bundler.lock import is_still, take_lock
from bundler.new_folder import make_folder, remove_empty, sync_folder
from bundler.permission import told


@contextmanager
def whole_file(path: Path, *, wait: bool = False) -> Iterator[BinaryIO]:
    """A file to write that takes the name `path` when it is whole and on disk.

    Until then it is a draft beside it, held by one process at a time; a killed one's is used again.
    If another process writes the same file: waits for it, or raises TargetError without `wait`.
    Raises OSError, which names `path`.
    """
    draft = path.with_name(f".{path.name}.bundler-part")
    try:
        with _held(draft, wait) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(draft, path)
    except BaseException as error:
        _remove_if_free(draft)
        if isinstance(error, OSError) and error.filename in (draft, str(draft)):
            error.filename = str(path)
        raise
    sync_folder(path.parent)


def _remove_if_free(draft: Path) -> None:
    """Remove a draft that no process holds."""
    with suppress(OSError):
        handle = os.open(draft, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            take_lock(handle)
            state = os.fstat(handle)
            if stat.S_ISREG(state.st_mode) and is_still(handle, draft):
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
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EEXIST, "not a file", str(draft))
            if is_still(handle, draft):
                os.ftruncate(handle, 0)
                yield file
                return


def write_text(path: Path, content: str, option: str) -> None:
    """Put a small file at `path`, whole or not at all; folders are made.

    Raises TargetError, with `option` as the way to name another place.
    """
    with told(path.parent, option):
        made = make_folder(path.parent)
        try:
            with whole_file(path, wait=True) as file:
                with suppress(FileNotFoundError):
                    # Whoever could read what stood there can still.
                    os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
                file.write(os.fsencode(content))
        except BaseException:
            remove_empty(made)
            raise
