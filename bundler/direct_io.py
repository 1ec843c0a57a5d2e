"""Writing large files around the page cache, where the file system lets us.

The processor then has nothing to copy, no other program's files are pushed out of memory, and there
is nothing left to wait for at the end. Such writes must be aligned, in the file and in memory:
open(2), "O_DIRECT". What cannot be, such as the end of a file, goes the usual way.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor

ALIGNMENT = 4096
"""Bytes; every disk is content with it."""
_BLOCK_SIZE = 8 << 20
"""Bytes written in one step where all is written in order."""
_DIRECT = getattr(os, "O_DIRECT", 0)
"""Other systems than Linux have none."""


class ScatteredWriter:
    """Writes to an open file at any offset, by several threads at once; closes nothing."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._is_direct = _set_direct(file, True)
        self._rest: list[tuple[int, bytes]] = []
        self._local = threading.local()

    def write(self, offset: int, data: memoryview) -> None:
        """Put `data` at `offset`. What is less than a page may wait until `finish`."""
        if self._is_direct and offset % ALIGNMENT:
            self._give_up()
        if not self._is_direct:
            write_all(self._file, data, offset)
            return
        whole = len(data) - len(data) % ALIGNMENT
        if whole < len(data):
            self._rest.append((offset + whole, bytes(data[whole:])))
        buffer = self._buffer(whole)
        buffer[:whole] = data[:whole]
        try:
            write_all(self._file, memoryview(buffer)[:whole], offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._give_up()
            write_all(self._file, data[:whole], offset)

    def finish(self) -> None:
        """Write what has waited, when no thread writes any more."""
        if self._rest:
            self._give_up()
        for offset, data in self._rest:
            write_all(self._file, memoryview(data), offset)

    def _buffer(self, size: int) -> mmap.mmap:
        """Memory of this thread, aligned as only whole pages are."""
        buffer: mmap.mmap | None = getattr(self._local, "buffer", None)
        if buffer is None or len(buffer) < size:
            buffer = self._local.buffer = mmap.mmap(-1, max(size, ALIGNMENT))
        return buffer

    def _give_up(self) -> None:
        self._is_direct = _set_direct(self._file, False)


class BlockWriter:
    """Appends to an open, empty file in large blocks: one is written while the next is filled.

    A context manager: leaving it without an error writes what is left. Closes nothing.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._is_direct = _set_direct(file, True)
        self._thread = ThreadPoolExecutor(1, "write")
        self._under_way: Future[None] | None = None
        self._filling, self._writing = mmap.mmap(-1, _BLOCK_SIZE), mmap.mmap(-1, _BLOCK_SIZE)
        self._filled = 0
        self._offset = 0

    def __enter__(self) -> BlockWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._wait()
                if self._filled % ALIGNMENT and self._is_direct:
                    _set_direct(self._file, False)
                write_all(self._file, memoryview(self._filling)[: self._filled], self._offset)
        finally:
            self._thread.shutdown()

    def write(self, data: bytes, /) -> None:
        """Append `data`. Raises OSError, also of an earlier write."""
        rest = memoryview(data)
        while rest:
            piece = rest[: _BLOCK_SIZE - self._filled]
            self._filling[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            rest = rest[len(piece) :]
            if self._filled == _BLOCK_SIZE:
                self._wait()
                self._filling, self._writing = self._writing, self._filling
                self._under_way = self._thread.submit(self._write_block, self._offset)
                self._offset += _BLOCK_SIZE
                self._filled = 0

    def _wait(self) -> None:
        if self._under_way is not None:
            self._under_way.result()

    def _write_block(self, offset: int) -> None:
        block = memoryview(self._writing)
        try:
            write_all(self._file, block, offset)
        except OSError as error:
            if error.errno != errno.EINVAL or not self._is_direct:
                raise
            self._is_direct = _set_direct(self._file, False)
            write_all(self._file, block, offset)


def write_all(file: int, data: memoryview, offset: int) -> None:
    """Write all of `data` at `offset` of an open file. Raises OSError."""
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written


def _set_direct(file: int, wanted: bool) -> bool:
    """Let writes go around the page cache, or not; whether they do."""
    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    try:
        fcntl.fcntl(file, fcntl.F_SETFL, flags | _DIRECT if wanted else flags & ~_DIRECT)
    except OSError:  # Not every file system can.
        return False
    return wanted and _DIRECT != 0
