"""A zstd stream cut into independent frames, with a table at the end that tells where each is.

This is the Zstandard seekable format 0.1.0 (facebook/zstd, contrib/seekable_format) with checksums.
Any zstd decoder reads it straight through; a reader that has the table starts at any frame.

Several threads work on it, each on one frame at a time from beginning to end, so that the frame
stays in the cache of one processor. What must be in the order of the frames is done in turns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol, TypeVar

import zstandard

from bundler.digest import Readable
from bundler.errors import DamagedError
from bundler.parallel import Count, Turns, default_jobs, each_in_threads
from bundler.seek_table import SeekTable, SeekTableWriter

MAX_WINDOW = 8 << 20
"""Bytes; what the zstd specification recommends that every decoder supports."""
CUT_SHORT = "the bundle ends too early: it was not copied whole, copy it again"
T = TypeVar("T")


class Output(Protocol):
    """Where frames go."""

    def write(self, data: bytes, /) -> object:
        """Append `data`."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The content of one frame; at most FRAME_SIZE bytes."""

    content: bytes
    level: int
    """Of zstd."""
    progress: int
    """How many of the bytes are to be told as done."""


class FrameWriter:
    """Writes frames to `out`, and at the end their table. The bytes do not depend on `jobs`."""

    def __init__(self, out: Output, jobs: int | None = None) -> None:
        self._out = out
        self._threads = _threads(jobs)
        self._compressors: dict[tuple[int, int], zstandard.ZstdCompressor] = {}
        self._table = SeekTableWriter()
        self._turns = Turns()
        self.size = 0
        """Bytes written to `out` so far."""

    def write(self, pieces: Iterable[Piece], count: Count) -> None:
        """Write a frame for each piece, in their order, and the table; not to be called twice.

        Pieces are asked for one at a time, in any thread. `count` is told their progress. Raises
        what making and writing them raises.
        """
        each_in_threads(enumerate(pieces), self._write_one, self._threads, count)
        self._emit(self._table.to_bytes())

    def _write_one(self, numbered: tuple[int, Piece], count: Count) -> None:
        number, piece = numbered
        with self._turns.ended_by_errors():
            frame = self._compressor(piece.level).compress(piece.content)
            with self._turns.take(number):
                self._emit(frame)
                self._table.add(frame, len(piece.content))
            count(piece.progress)

    def _compressor(self, level: int) -> zstandard.ZstdCompressor:
        key = threading.get_ident(), level
        if key not in self._compressors:
            self._compressors[key] = zstandard.ZstdCompressor(
                level=level, write_checksum=True, write_content_size=True
            )
        return self._compressors[key]

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
        self._content = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(
            source,  # type: ignore[arg-type]  # any object with a read will do
            read_across_frames=True,
        )
        self._ahead = b""
        self.position = 0
        """Where in the content the next byte is."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, at most `size`; none at the end. Raises DamagedError."""
        try:
            data: bytes = self._ahead[:size] or self._content.read(size)
            self._ahead = self._ahead[len(data) :]
        except zstandard.ZstdError as error:
            raise DamagedError(_damaged(error)) from None
        except OSError as error:
            raise DamagedError(f"the bundle cannot be read: {error.strerror}") from None
        self.position += len(data)
        return data

    def finish_frame(self) -> None:
        """Compare the checksum of the frame that ends here: the decoder does so one byte later."""
        self._ahead = self.read(1)
        self.position -= len(self._ahead)


def decompress_each(
    file: BinaryIO,
    table: SeekTable,
    numbers: Iterable[int],
    in_turn: Callable[[int, int, bytes | DamagedError], T],
    then: Callable[[T, Count], None],
    jobs: int | None,
    count: Count,
) -> None:
    """Decompress the frames with these numbers, which rise.

    `in_turn` gets where the content of each begins and ends, and the content or what is wrong with
    it, one after the other; `then` gets what that gave, in any order and several at once. `count`
    as in `each_in_threads`. Raises what the two raise.
    """
    turns = Turns()
    decompressors: dict[int, zstandard.ZstdDecompressor] = {}

    def frames() -> Iterator[tuple[int, int, bytes | DamagedError]]:
        for turn, number in enumerate(numbers):
            try:
                yield turn, number, _frame(file, table, number)
            except DamagedError as error:
                yield turn, number, error

    def work(frame: tuple[int, int, bytes | DamagedError], count: Count) -> None:
        turn, number, content = frame
        decompressor = decompressors.get(threading.get_ident())
        if decompressor is None:
            decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
            decompressors[threading.get_ident()] = decompressor
        begin, end = table.content_offsets[number : number + 2]
        with turns.ended_by_errors():
            try:
                if isinstance(content, bytes):
                    content = _decompressed(content, end - begin, decompressor)
            except DamagedError as error:
                content = error
            with turns.take(turn):
                result = in_turn(begin, end, content)
            then(result, count)

    each_in_threads(frames(), work, _threads(jobs), count)


def _threads(jobs: int | None) -> int:
    """A few more than processors: some of them wait for the disk."""
    return (jobs or default_jobs()) + 2


def _frame(file: BinaryIO, table: SeekTable, number: int) -> bytes:
    begin, end = table.file_offsets[number : number + 2]
    try:
        file.seek(begin)
        return read_exactly(file, end - begin)
    except OSError as error:
        raise DamagedError(f"the bundle cannot be read: {error.strerror}") from None


def _decompressed(frame: bytes, size: int, decompressor: zstandard.ZstdDecompressor) -> bytes:
    try:
        # The decoder allocates what the frame claims to hold: compare before believing.
        if zstandard.get_frame_parameters(frame).content_size != size:
            raise DamagedError("a frame and the seek table tell different sizes")
        content: bytes = decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DamagedError(_damaged(error)) from None
    return content


def _damaged(error: zstandard.ZstdError) -> str:
    said = str(error).rpartition("error: ")[2]
    return f"the compressed data is damaged ({said})"
