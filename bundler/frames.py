"""A zstd stream cut into independent frames, with a table at the end that tells where each is.

This is the Zstandard seekable format 0.1.0 (facebook/zstd, contrib/seekable_format) with checksums.
Any zstd decoder reads it straight through; a reader that has the table starts at any frame, and
frames are compressed and decompressed in parallel. Offsets without another word are in the
uncompressed content.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

import zstandard

from bundler.digest import COPY_SIZE, Readable
from bundler.errors import DamagedError
from bundler.parallel import default_jobs
from bundler.seek_table import FRAME_SIZE, SeekTable, SeekTableWriter

MAX_WINDOW = 8 << 20
"""Bytes; what the zstd specification recommends that every decoder supports."""
DEFAULT_LEVEL = 3


class FrameWriter:
    """Write content as frames to `out`; `close` adds the table.

    The bytes do not depend on `jobs`.
    """

    def __init__(self, out: BinaryIO, level: int = DEFAULT_LEVEL, jobs: int | None = None) -> None:
        self._out = out
        self._level = level
        self._jobs = jobs or default_jobs()
        self._pool = ThreadPoolExecutor(self._jobs, "compress")
        self._local = threading.local()
        self._content = bytearray()
        self._under_way: deque[tuple[int, Future[bytes]]] = deque()
        self._table = SeekTableWriter()
        self.size = 0
        """Bytes written to `out` so far."""

    def write(self, data: bytes) -> None:
        """Append `data`; frames are cut every FRAME_SIZE bytes."""
        self._content += data
        while len(self._content) >= FRAME_SIZE:
            self._submit(self._content[:FRAME_SIZE])
            del self._content[:FRAME_SIZE]

    def cut(self) -> None:
        """End the frame here, so that what follows can be read without what came before."""
        if self._content:
            self._submit(self._content)
            self._content = bytearray()

    def close(self) -> None:
        """Write what is left and the table."""
        self.cut()
        while self._under_way:
            self._write_next()
        self._emit(self._table.to_bytes())

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _submit(self, content: bytearray) -> None:
        # The bound keeps memory flat: for each thread a frame in work and one that waits.
        while len(self._under_way) > 2 * self._jobs:
            self._write_next()
        self._under_way.append((len(content), self._pool.submit(self._compress, content)))

    def _compress(self, content: bytearray) -> bytes:
        if not hasattr(self._local, "compressor"):
            self._local.compressor = zstandard.ZstdCompressor(
                level=self._level, write_checksum=True, write_content_size=True
            )
        frame: bytes = self._local.compressor.compress(content)
        return frame

    def _write_next(self) -> None:
        size, future = self._under_way.popleft()
        frame = future.result()
        self._emit(frame)
        self._table.add(frame, size)

    def _emit(self, data: bytes) -> None:
        self._out.write(data)
        self.size += len(data)


def read_exactly(source: Readable, size: int) -> bytes:
    """`size` bytes of `source`. Raises DamagedError if it has fewer."""
    parts = []
    while size:
        data = source.read(size)
        if not data:
            raise DamagedError("the bundle ends too early: it was not copied whole, copy it again")
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


class StreamedFrames:
    """Frames from a source that cannot seek, such as a pipe: each part is read once, in order."""

    def __init__(self, source: Readable) -> None:
        self._content = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(
            source,  # type: ignore[arg-type]  # any object with a read will do
            read_across_frames=True,
        )
        self._position = 0
        self._ahead = b""

    def open(self, start: int, end: int) -> Readable:
        while self._position < start:
            if not self._read(min(start - self._position, COPY_SIZE)):
                break
        return _Range(self._read, end - start)

    def finish_frame(self) -> None:
        """Compare the checksum of the frame that ends here: the decoder does so one byte later."""
        self._ahead = self._read(1)
        self._position -= len(self._ahead)

    def drain(self) -> int:
        """Read to the end of the source, so that whoever writes it ends well; bytes of content."""
        return sum(len(data) for data in iter(lambda: self._read(COPY_SIZE), b""))

    def _read(self, size: int) -> bytes:
        try:
            data: bytes = self._ahead[:size] or self._content.read(size)
            self._ahead = self._ahead[len(data) :]
        except zstandard.ZstdError as error:
            raise DamagedError(_damaged(error)) from None
        except OSError as error:
            raise DamagedError(f"the bundle cannot be read: {error.strerror}") from None
        self._position += len(data)
        return data


class SeekableFrames:
    """Frames of a file with a table; the frames of an opened part are decompressed ahead."""

    def __init__(self, file: BinaryIO, table: SeekTable, jobs: int | None = None) -> None:
        self._file = file
        self._table = table
        self._jobs = jobs or default_jobs()
        self._pool = ThreadPoolExecutor(self._jobs, "decompress")
        self._local = threading.local()

    def open(self, start: int, end: int) -> Readable:
        chunks = self._chunks(start, end)
        rest = memoryview(b"")

        def read(size: int) -> bytes:
            nonlocal rest
            if not rest:
                rest = memoryview(next(chunks, b""))
            data, rest = bytes(rest[:size]), rest[size:]
            return data

        return _Range(read, end - start)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _chunks(self, start: int, end: int) -> Iterator[bytes]:
        ahead: deque[Future[bytes]] = deque()
        first = self._table.frame_at(start)
        skip = start - self._table.content_offsets[first]
        for number in range(first, len(self._table)):
            if self._table.content_offsets[number] >= end:
                break
            ahead.append(self._pool.submit(self._decompress, self._frame(number), number))
            # The first frame alone: if it is damaged, or all that was wanted, no other was needed.
            if len(ahead) > (self._jobs if number > first else 0):
                yield ahead.popleft().result()[skip:]
                skip = 0
        while ahead:
            yield ahead.popleft().result()[skip:]
            skip = 0

    def _frame(self, number: int) -> bytes:
        begin, end = self._table.file_offsets[number : number + 2]
        try:
            self._file.seek(begin)
            return read_exactly(self._file, end - begin)
        except OSError as error:
            raise DamagedError(f"the bundle cannot be read: {error.strerror}") from None

    def _decompress(self, frame: bytes, number: int) -> bytes:
        begin, end = self._table.content_offsets[number : number + 2]
        if not hasattr(self._local, "decompressor"):
            self._local.decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        try:
            # The decoder allocates what the frame claims to hold: compare before believing.
            if zstandard.get_frame_parameters(frame).content_size != end - begin:
                raise DamagedError("a frame and the seek table tell different sizes")
            content: bytes = self._local.decompressor.decompress(frame, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise DamagedError(_damaged(error)) from None
        return content


def _damaged(error: zstandard.ZstdError) -> str:
    said = str(error).rpartition("error: ")[2]
    return f"the compressed data is damaged ({said})"


class _Range:
    """The next `size` bytes of `read`."""

    def __init__(self, read: Callable[[int], bytes], size: int) -> None:
        self._read = read
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        data = self._read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data
