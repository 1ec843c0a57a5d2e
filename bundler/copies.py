"""Files of this machine that may be what is to be carried: read, never altered."""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from bundler.errors import DamagedError, RequestError
from bundler.sharing import SHARED_FROM

if TYPE_CHECKING:
    from typing_extensions import Buffer


class ChangedError(DamagedError):
    """A file is not as it was when it was found."""


@dataclass(frozen=True, slots=True)
class Copy:
    """The file at `path`, or where that leads to, as it was when it was found.

    `size` is in bytes, `mtime_ns` the time of its last change in nanoseconds.
    """

    path: str
    size: int
    mtime_ns: int

    @property
    def is_small(self) -> bool:
        """Whether it is read where it is whenever it is needed; the store shares larger ones."""
        return self.size < SHARED_FROM

    @property
    def place(self) -> str:
        """Where the content itself stands, if `path` is a link."""
        return os.path.realpath(self.path)

    def open(self, start: int = 0) -> BinaryIO:
        """The content from byte `start` on, which can seek; the caller closes it.

        Raises RequestError if it cannot be opened. Whoever reads to the end gets a DamagedError if
        it is not as it was when it was found, or cannot be read.
        """
        if self.is_small:
            return io.BytesIO(self.read()[start:])
        try:
            content = io.BufferedReader(_Unchanged(self))
            content.seek(start)
        except OSError as error:
            raise self._unreadable(error) from None
        return content

    def read(self) -> bytes:
        """The content of a small file. Raises as `open` and reading to the end do."""
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unreadable(error) from None
        try:
            content = os.read(file, self.size + 1)
            self.check(len(content), os.fstat(file))
        except OSError as error:
            raise self.fault(error) from None
        finally:
            os.close(file)
        return content

    def check(self, size: int, state: os.stat_result) -> None:
        """Raise ChangedError if what was read, and is in this state, is not what was found."""
        if (size, state.st_mtime_ns) != (self.size, self.mtime_ns):
            raise ChangedError(f"{self.path} was changed while it was read: pack again")

    def fault(self, error: OSError) -> DamagedError:
        """What there is to tell of an error while it is read."""
        return DamagedError(f"cannot read {self.path}: {error.strerror}")

    def _unreadable(self, error: OSError) -> RequestError:
        return RequestError(f"cannot read {self.path}: {error.strerror}")


def copy_at(path: str) -> Copy:
    """The file at `path`, or where that leads to, as it is now. Raises RequestError, OSError."""
    return copy_in_state(path, os.stat(path))


def copy_in_state(path: str, state: os.stat_result) -> Copy:
    """The same of a file that is known to be in this state. Raises RequestError."""
    if not stat.S_ISREG(state.st_mode):
        raise RequestError(f"{path} is not a file: move it away, and pack again")
    return Copy(path, state.st_size, state.st_mtime_ns)


class _Unchanged(io.FileIO):
    """A file's content; an error where it ends if it was written to meanwhile."""

    def __init__(self, copy: Copy) -> None:
        super().__init__(copy.path)
        self._copy = copy

    def readinto(self, buffer: Buffer, /) -> int | None:
        try:
            count = super().readinto(buffer)
            if not count:
                state = os.stat(self._copy.path)
                self._copy.check(state.st_size, state)
        except OSError as error:
            raise self._copy.fault(error) from None
        return count
