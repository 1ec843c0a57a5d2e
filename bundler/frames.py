"""A zstd stream cut into independent frames, with a table at the end that tells where each is.

This is the Zstandard seekable format 0.1.0 (facebook/zstd, contrib/seekable_format) with checksums.
Any zstd decoder reads it straight through; a reader that has the table starts at any frame.

Several threads work on it, each on one frame at a time, so that it stays in the cache of one
processor: what goes into a frame is read and hashed by the thread that compresses it, and what
comes out of one is hashed by the thread that decompressed it, in turns. The calling thread writes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import BinaryIO, Protocol, TypeVar

from bundler.digest import Readable
from bundler.errors import DamagedError, RequestError
from bundler.parallel import Count, in_order
from bundler.seek_table import SeekTable, SeekTableWriter, checksum_of
from bundler.zstd import zstd

_AHEAD = 8 << 20
"""Bytes; by some frames, so that a disk always has something to do."""
CUT_SHORT = "the bundle ends too early: it was not copied whole, copy it again"
T = TypeVar("T")


class Output(Protocol):
    """Where frames go."""

    def write(self, data: bytes, /) -> object:
        """Append `data`."""


def unchecked(_: int) -> None:
    """Take any checksum for right: the content was compared in another way."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The content of one frame; at most FRAME_SIZE bytes."""

    content: bytes
    level: int
    """Of zstd."""
    progress: int
    """How many of the bytes are to be told as done."""
    check: Callable[[int], None] = unchecked
    """Is given the checksum of the content, and raises if that is not right."""


class FrameWriter:
    """Writes frames to `out`, and at the end their table. The bytes do not depend on `jobs`."""

    def __init__(self, out: Output, jobs: int | None = None) -> None:
        self._out = out
        self._jobs = jobs
        self._local = threading.local()
        self._table = SeekTableWriter()
        self.size = 0
        """Bytes written to `out` so far."""

    def write(self, pieces: Iterable[Piece], count: Count) -> None:
        """Write a frame for each piece, in their order, and the table; not to be called twice.

        Pieces are asked for one at a time, in any thread. `count` is told their progress. Raises
        what making and writing them raises.
        """
        frames = in_order(pieces, self._frame, lambda frame: frame, self._jobs)
        with closing(frames):
            for piece, frame in frames:
                self._emit(frame)
                self._table.add(frame, len(piece.content))
                count(piece.progress)
        self._emit(self._table.to_bytes())

    def _frame(self, piece: Piece) -> tuple[Piece, bytes]:
        compressors: dict[int, Callable[[bytes], bytes]]
        compressors = self._local.__dict__.setdefault("compressors", {})
        if piece.level not in compressors:
            from bundler.zstd.package import compressor  # Who only reads may have another zstd.

            compressors[piece.level] = compressor(piece.level)
        frame = compressors[piece.level](piece.content)
        piece.check(checksum_of(frame))
        return piece, frame

    def _emit(self, data: bytes) -> None:
        self._out.write(data)
        self.size += len(data)


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
        self.position = 0
        """Where in the content the next byte is."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, at most `size`; none at the end. Raises DamagedError."""
        try:
            data = self._ahead[:size] or self._content.read(size)
        except DamagedError:
            if self._source.error is None:
                raise
            data = b""
        self._ahead = self._ahead[len(data) :]
        if not data and self._source.error is not None:
            raise DamagedError(f"the bundle cannot be read: {self._source.error.strerror}")
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

    def frames() -> Iterator[tuple[int, bytes | DamagedError]]:
        for number in numbers:
            try:
                yield number, _frame(file, table, number)
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


def _frame(file: BinaryIO, table: SeekTable, number: int) -> bytes:
    begin, end = table.file_offsets[number : number + 2]
    _read_ahead(file, end)
    try:
        file.seek(begin)
        return read_exactly(file, end - begin)
    except OSError as error:
        raise DamagedError(f"the bundle cannot be read: {error.strerror}") from None


def _read_ahead(file: BinaryIO, offset: int) -> None:
    """Let the system fetch what comes next from a disk while this frame is worked on."""
    with suppress(OSError, AttributeError):  # Not every stream is a file, nor has every system it.
        os.posix_fadvise(file.fileno(), offset, _AHEAD, os.POSIX_FADV_WILLNEED)
