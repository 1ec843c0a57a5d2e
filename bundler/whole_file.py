"""Files that appear whole or not at all, and what it means when the file system refuses."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bundler.errors import TargetError


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the name `path` when it is whole and on disk. Raises OSError."""
    draft = path.with_name(f".{path.name}.part")
    try:
        with open(draft, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_text(path: Path, content: str, option: str) -> None:
    """Put a small file at `path`, whole or not at all; folders are made.

    Raises TargetError, with `option` as the way to name another place.
    """
    with told(path.parent, option):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write(content.encode())


@contextmanager
def told(where: Path, option: str) -> Iterator[None]:
    """Turn a refusal of the file system at or below `where` into a TargetError.

    `option` is what the user can name another place with.
    """
    try:
        yield
    except OSError as error:
        place = where / error.filename if isinstance(error.filename, str) else where
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"no space left for {where}: free some, or choose another place with {option}"
        elif error.errno == errno.EFBIG:
            message = (
                f"{where} would be larger than its file system can hold (FAT: 4 GiB): "
                f"choose another place with {option}"
            )
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            message = f"not allowed to write {place}: choose another place with {option}"
        else:
            message = f"cannot write {place}: {error.strerror}; choose another place with {option}"
        raise TargetError(message) from None
