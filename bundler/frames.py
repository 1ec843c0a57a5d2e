"""A zstd stream cut into independent frames, with a table at the end that tells where each is.

This is the Zstandard seekable format 0.1.0 (facebook/zstd, contrib/seekable_format) with checksums.
Any zstd decoder reads it straight through; a reader that has the table starts at any frame.

Several threads read it, each one frame at a time, so that it stays in the cache of one processor:
what comes out of a frame is hashed by the thread that decompressed it, in turns. The calling thread
writes. `frame_writer` makes such a stream.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from typing import BinaryIO, TypeVar

from bundler.digest import Readable
from bundler.errors import DamagedError, RequestError
from bundler.parallel import in_order
from bundler.seek_table import SeekTable
from bundler.zstd import zstd

_AHEAD = 8 << 20
"""Bytes; by some frames, so that a disk always has something to do."""
CUT_SHORT = "the bundle ends too early: it was not copied whole, copy it again"
T = TypeVar("T")


def read_exactly(source: Readable, size: int) -> bytes:
    """`size` bytes of `source`. Raises DamagedError if it has fewer."""
    parts = []
    while size:
        data = source.read(size)
        if not data:
            raise DamagedError(CUT_SHORT)
        parts.append(data)
        size -= len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class StreamedFrames:
    """The content of a source that need not seek, such as a pipe: read once, from the start on."""

    def __init__(self, source: Readable) -> None:
        self._source = _UpToError(source)
        self._content = zstd().reader(self._source)
        self._ahead = b""
        self._fault: DamagedError | None = None
        self.position = 0
        """Where in the content the next byte is."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, at most `size`; none at the end. Raises DamagedError, then every time."""
        data = b""
        if self._fault is None:
            try:
                data = self._ahead[:size] or self._content.read(size)
            except DamagedError as error:
                self._fault = error
            if not data and self._source.error is not None:
                said = self._source.error.strerror
                self._fault = DamagedError(f"the bundle cannot be read: {said}")
        if self._fault is not None:
            raise self._fault
        self._ahead = self._ahead[len(data) :]
        self.position += len(data)
        return data

    def finish_frame(self) -> None:
        """Compare the checksum of the frame that ends here: the decoder does so one byte later."""
        self._ahead = self.read(1)
        self.position -= len(self._ahead)

    def close(self) -> None:
        """No more will be read. The source stays open."""
        self._content.close()


class _UpToError:
    """A source that ends where it cannot be read: a decoder gives out what came before that."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self.error: OSError | None = None

    def read(self, size: int = -1, /) -> bytes:
        if self.error is None:
            try:
                return self._source.read(size)
            except OSError as error:
                self.error = error
        return b""


def decompressed(
    file: BinaryIO,
    table: SeekTable,
    numbers: Iterable[int],
    in_turn: Callable[[int, int, bytes | DamagedError], T],
    jobs: int | None = None,
) -> Generator[T, None, None]:
    """What `in_turn` makes of each of the frames with these numbers, which rise, in their order.

    It gets where the content of the frame begins and ends, and the content, or what is wrong with
    it; by any of `jobs` threads, one call after the other. Raises what it raises, and RequestError
    if the zstd that is here reads from start to end only.
    """
    decompressor = zstd().decompressor
    if decompressor is None:
        raise RequestError("the program zstd reads no single frames: install the package zstandard")
    local = threading.local()
    ahead = _ReadAhead(file)

    def frames() -> Iterator[tuple[int, bytes | DamagedError]]:
        for number in numbers:
            begin, end = table.file_offsets[number : number + 2]
            ahead.go_on(end)
            try:
                yield number, _read_at(file, begin, end)
            except DamagedError as error:
                yield number, error

    def decompress(frame: tuple[int, bytes | DamagedError]) -> tuple[int, bytes | DamagedError]:
        number, content = frame
        begin, end = table.content_offsets[number : number + 2]
        if not hasattr(local, "decompress"):
            local.decompress = decompressor()
        try:
            if isinstance(content, bytes):
                content = local.decompress(content, end - begin)
        except DamagedError as error:
            content = error
        return number, content

    def take(frame: tuple[int, bytes | DamagedError]) -> T:
        number, content = frame
        begin, end = table.content_offsets[number : number + 2]
        return in_turn(begin, end, content)

    return in_order(frames(), decompress, take, jobs)


def _read_at(file: BinaryIO, begin: int, end: int) -> bytes:
    try:
        file.seek(begin)
        return read_exactly(file, end - begin)
    except OSError as error:
        raise DamagedError(f"the bundle cannot be read: {error.strerror}") from None


class _ReadAhead:
    """Lets the system fetch what comes next from a disk while frames are worked on."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._end = 0
        """Of what it was asked for so far: to be asked again takes it a while."""

    def go_on(self, offset: int) -> None:
        """All before `offset` has been read, or is not wanted."""
        if self._end < offset + _AHEAD // 2:
            begin, self._end = max(offset, self._end), offset + _AHEAD
            # Not every stream is a file, nor has every system this call.
            with suppress(OSError, AttributeError):
                os.posix_fadvise(
                    self._file.fileno(), begin, self._end - begin, os.POSIX_FADV_WILLNEED
                )
