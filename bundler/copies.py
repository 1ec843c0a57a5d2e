"""Files of this machine that may be what is to be carried: read, never altered."""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from bundler.errors import DamagedError, RequestError
from bundler.origin import Key, Origin
from bundler.sharing import SHARED_FROM

if TYPE_CHECKING:
    from typing_extensions import Buffer


class ChangedError(DamagedError):
    """A file is not as it was when it was found."""


@dataclass(frozen=True, slots=True, eq=False)
class Copy(Origin):
    """The file `name` in `folder`, or where that leads to, as it was when it was found.

    `size` is in bytes, `mtime_ns` the time of its last change in nanoseconds. `known_as` names what
    it should hold, wherever that is, if something does (`remote.content_identity`).
    """

    folder: str
    name: str
    """A path from there: there may be very many, and all share the text of the folder."""
    size: int
    mtime_ns: int
    inode: int
    known_as: str | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Copy) and self._as_it_is == other._as_it_is

    def __hash__(self) -> int:
        return hash(self.inode)

    @property
    def identity(self) -> str:
        """As `Origin` has it."""
        return self.known_as or self._as_it_is

    @property
    def _as_it_is(self) -> str:
        # A file that was changed is other content, under the same name.
        return f"file:{self.path}:{self.inode}:{self.size}:{self.mtime_ns}"

    @property
    def key(self) -> Key:
        """As `Origin` has it: without a long text for each of very many."""
        return self.known_as or self

    @property
    def path(self) -> str:
        """Where it was found."""
        return os.path.join(self.folder, self.name)

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


def copy_at(folder: str, name: str, known_as: str | None = None) -> Copy:
    """The file `name` in `folder`, or where that leads to, as it is now; as `Copy` has it.

    Raises RequestError if it is none, and OSError.
    """
    path = os.path.join(folder, name)
    state = os.stat(path)
    if not stat.S_ISREG(state.st_mode):
        raise RequestError(f"{path} is not a file: move it away, and pack again")
    return Copy(folder, name, state.st_size, state.st_mtime_ns, state.st_ino, known_as)


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
