"""Large files written, and read again, around the page cache, where the file system lets us.

The processor then has nothing to copy, no other program's files are pushed out of memory, and there
is nothing left to wait for at the end; and what is read is what the disk has. All must be aligned,
in the file and in memory: open(2), "O_DIRECT". What cannot be, such as the end of a file, goes the
usual way.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

ALIGNMENT = 4096
"""Bytes; every disk is content with it."""
BLOCK_SIZE = 1 << 20
"""Bytes written, or read, in one step."""
_DIRECT = getattr(os, "O_DIRECT", 0)
"""Other systems than Linux have none."""


class DirectWriter:
    """Appends to an open, empty file, in large blocks. `finish` writes the rest; closes nothing."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._is_direct = _set_direct(file, True)
        self._block = mmap.mmap(-1, BLOCK_SIZE)
        self._filled = 0
        self._offset = 0

    def write(self, data: bytes | memoryview, /) -> None:
        """Append `data`. Raises OSError."""
        rest = memoryview(data)
        while rest:
            piece = rest[: len(self._block) - self._filled]
            self._block[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            rest = rest[len(piece) :]
            if self._filled == len(self._block):
                self._write_block()

    def rewrite(self, offset: int, data: bytes) -> None:
        """Put `data` over what was written from `offset` on; nothing is appended after that.

        Raises OSError.
        """
        self.finish()
        self._give_up()
        write_all(self._file, memoryview(data), offset)

    def finish(self) -> None:
        """Write what is left. Raises OSError."""
        if self._filled % ALIGNMENT:
            self._give_up()
        self._write_block()

    def _write_block(self) -> None:
        block = memoryview(self._block)[: self._filled]
        try:
            write_all(self._file, block, self._offset)
        except OSError as error:
            if error.errno != errno.EINVAL or not self._is_direct:
                raise
            self._give_up()  # It took the flag and cannot do it.
            write_all(self._file, block, self._offset)
        self._offset += self._filled
        self._filled = 0

    def _give_up(self) -> None:
        if self._is_direct:
            self._is_direct = _set_direct(self._file, False)


def write_all(file: int, data: memoryview, offset: int) -> None:
    """Write all of `data` at `offset` of an open file. Raises OSError."""
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written


def read_blocks(path: Path) -> Iterator[memoryview]:
    """The content of a file that is synced, in blocks: each is there until the next is asked for.

    Raises OSError.
    """
    block = mmap.mmap(-1, BLOCK_SIZE)
    with open(path, "rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):  # Of use where reads cannot be direct.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        is_direct = _set_direct(file.fileno(), True)
        while True:
            try:
                count = file.readinto(block)
            except OSError as error:
                if error.errno != errno.EINVAL or not is_direct:
                    raise
                is_direct = _set_direct(file.fileno(), False)
                continue
            if not count:
                return
            yield memoryview(block)[:count]


def _set_direct(file: int, wanted: bool) -> bool:
    """Let reads and writes go around the page cache, or not; whether they do."""
    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    try:
        fcntl.fcntl(file, fcntl.F_SETFL, flags | _DIRECT if wanted else flags & ~_DIRECT)
    except OSError:  # Not every file system can.
        return False
    return wanted and _DIRECT != 0
