"""What a file system refuses, and what to do then: asked before anything is written, told after."""

from __future__ import annotations

import errno
import os
import pwd
from collections.abc import Iterable
from pathlib import Path

from bundler.disk import existing
from bundler.errors import TargetError, amount

_FEW = 64
"""Names that a full disk may have room for again when it is looked at: folders were removed."""


def check_permission(folders: Iterable[Path], option: str) -> None:
    """Raise TargetError if something cannot be put into `folders`, or they cannot be made.

    `option` is what the user can name another place with.
    """
    for folder in dict.fromkeys(map(existing, folders)):
        if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
            raise TargetError(_refusal(folder, option))


def check_sight(folder: Path, option: str) -> None:
    """Raise TargetError if it cannot even be told what is in `folder`, which may be missing."""
    place = existing(folder)
    if place.is_dir() and not os.access(place, os.X_OK):
        raise TargetError(_refusal(place, option))


class told:
    """Turns a refusal of the file system at or below `where` into a TargetError.

    A context manager that can be entered again, which costs next to nothing. `option` is what the
    user can name another place with.
    """

    def __init__(self, where: Path, option: str) -> None:
        self._where = where
        self._option = option

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if not isinstance(error, OSError):
            return
        where, option = self._where, self._option
        named = isinstance(error.filename, str) and Path(error.filename).is_absolute()
        place = Path(error.filename) if named else where
        if error.errno == errno.ENOSPC:
            error = _failure(where) or error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"{_shortage(error.errno, where)}, or choose another place with {option}"
        elif error.errno == errno.EFBIG:
            # Only a bundle can be split, not what is in it.
            file, or_split = f"a file below {where}", ""
            if option == "--output":
                file, or_split = str(where), ", or pack with --split-size auto"
            message = (
                f"{file} would be larger than its file system can hold (FAT: 4 GiB): "
                f"choose another place with {option}{or_split}"
            )
        elif error.errno == errno.ENAMETOOLONG:
            message = f"a path below {where} would be too long: choose another place with {option}"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            message = _refusal(place, option)
        elif error.errno == errno.EIO:
            message = (
                f"the disk of {place} fails ({error.strerror}), or was taken out: "
                f"choose another with {option}"
            )
        else:
            message = f"cannot write {place}: {error.strerror}; choose another place with {option}"
        raise TargetError(message) from None


def _failure(where: Path) -> OSError | None:
    """What is wrong with the disk of `where` if it is not full: Linux calls FAT full without it."""
    place = existing(where)
    place = place if place.is_dir() else place.parent
    try:
        folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        return error if error.errno == errno.EIO else None
    return None


def _shortage(number: int, where: Path) -> str:
    """What there is too little of at `where`, by the number of the error, and what to do."""
    state = os.statvfs(existing(where))
    if number == errno.EDQUOT:
        return f"no space left for {where} in what you may use (your quota): remove some files"
    if state.f_files and state.f_favail < _FEW:
        return f"no space left for {where}, whose disk can hold no more files: remove some"
    free = amount(state.f_bavail * state.f_frsize)
    return f"no space left for {where}, whose disk has {free} free: free some"


def _refusal(path: Path, option: str) -> str:
    """The line that says that `path` cannot be written, and who can, or which `option` helps."""
    place = existing(path)
    elsewhere = f"choose another place with {option}"
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        return f"not allowed to write {place}, which is on a read-only file system: {elsewhere}"
    owner = place.stat().st_uid
    if owner == os.geteuid():
        return f"not allowed to write {place}: make it writable (chmod u+w), or {elsewhere}"
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"'#{owner}'"  # As sudo takes it.
    return (
        f"not allowed to write {place}, which belongs to {name}: "
        f"run this as that user (sudo -u {name}), or {elsewhere}"
    )
