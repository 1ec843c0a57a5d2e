"""A file of this machine, as something to carry: read, never altered."""

from __future__ import annotations

import io
import os
import stat
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bundler.digest import Digest
from bundler.errors import DamagedError, RequestError
from bundler.remote import Copy, RemoteFile, content_identity

if TYPE_CHECKING:
    from typing_extensions import Buffer


def local_file(
    path: Path,
    name: str,
    *,
    digest: Digest | None = None,
    git_sha1: str | None = None,
    etag: str | None = None,
) -> RemoteFile:
    """The file at `path`, called `name`. The rest is what else is known of it, as in `RemoteFile`.

    Raises RequestError if it is no file, and OSError.
    """
    copy = copy_at(path)
    # A file that was changed is other content, under the same name.
    state = path.stat()
    as_it_is = f"file:{copy.path}:{state.st_ino}:{copy.size}:{state.st_mtime_ns}"
    return RemoteFile(
        path=name,
        open=copy.open,
        identity=content_identity(digest, git_sha1) or as_it_is,
        size=copy.size,
        digest=digest,
        git_sha1=git_sha1,
        etag=etag,
        copies=(copy,),
        is_here=True,
    )


def copy_at(path: Path) -> Copy:
    """The file at `path`, or where that leads to, as it is now. Raises RequestError, OSError."""
    state = path.stat()
    if path.is_symlink():
        path = Path(os.path.realpath(path))
    if not stat.S_ISREG(state.st_mode):
        raise RequestError(f"{path} is not a file: move it away, and pack again")
    opener = partial(_open, path, state.st_size, state.st_mtime_ns)
    return Copy(path, state.st_size, opener)


def _open(path: Path, size: int, mtime_ns: int, offset: int) -> BinaryIO:
    try:
        content = _Unchanged(path, size, mtime_ns)
        content.seek(offset)
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    return io.BufferedReader(content)


class _Unchanged(io.FileIO):
    """A local file's content; an error where it ends if it was written to meanwhile."""

    def __init__(self, path: Path, size: int, mtime_ns: int) -> None:
        super().__init__(path)
        self._path = path
        self._state = (size, mtime_ns)

    def readinto(self, buffer: Buffer, /) -> int | None:
        try:
            count = super().readinto(buffer)
            state = None if count else self._path.stat()
        except OSError as error:
            raise DamagedError(f"cannot read {self._path}: {error.strerror}") from None
        if state is not None and (state.st_size, state.st_mtime_ns) != self._state:
            raise DamagedError(f"{self._path} was changed while it was read: pack again")
        return count
