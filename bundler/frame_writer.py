"""Writes what `frames` reads: independent zstd frames, and the table that tells where each is.

Several threads work on it, each on one frame at a time, so that it stays in the cache of one
processor: what goes into a frame is read and hashed by the thread that compresses it. The calling
thread writes.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from xxhash import xxh64

from bundler.parallel import Count, in_order
from bundler.seek_table import SeekTableWriter, checksum_of
from bundler.zstd.package import compressor

STORED = 0
"""The level of a frame that is as long as its content is, and a little more, whatever that says."""
_BLOCK_SIZE = 128 << 10
"""Bytes: no zstd block has more (RFC 8878, 3.1.1.2.4)."""
_FRAME_HEADER = struct.Struct("<IBI")
_ZSTD_MAGIC = 0xFD2FB528
_SIZE_AND_CHECKSUM = 0b10_1_00_1_00
"""Its content is one segment, of a size in 4 bytes, with a checksum at the end (3.1.1.1.1)."""


class Output(Protocol):
    """Where frames go."""

    def write(self, data: bytes, /) -> object:
        """Append `data`."""


Rewrite = Callable[[int, bytes], object]
"""Puts bytes over those that were written from an offset on; nothing is appended after that."""


Later = Callable[[], bytes]
"""Gives what a frame holds when everything is known."""
Check = Callable[[int], None]
"""Is given the checksum of a frame's content, and raises if that is not right."""


def unchecked(_: int) -> None:
    """Take any checksum for right: the content was compared in another way."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The content of one frame; at most FRAME_SIZE bytes."""

    content: bytes
    level: int
    """Of zstd, or STORED."""
    progress: int = 0
    """How many of the bytes are to be told as done."""
    check: Check = unchecked
    later: Later | None = None
    """What stands there in the end, if that is not known before all else is written: as many bytes,
    STORED."""


class FrameWriter:
    """Writes frames to `out`, and at the end their table. The bytes do not depend on `jobs`.

    `rewrite` is asked for what is known `later`.
    """

    def __init__(
        self, out: Output, jobs: int | None = None, rewrite: Rewrite | None = None
    ) -> None:
        self._out = out
        self._jobs = jobs
        self._rewrite = rewrite
        self._local = threading.local()
        self._table = SeekTableWriter()
        self.size = 0
        """Bytes written to `out` so far."""

    def write(self, pieces: Iterable[Piece], count: Count) -> None:
        """Write a frame for each piece, in their order, and the table; not to be called twice.

        Pieces are asked for one at a time, in any thread. `count` is told their progress. Raises
        what making and writing them raises.
        """
        later = []
        with closing(in_order(pieces, self._frame, lambda frame: frame, self._jobs)) as frames:
            for frame, size, progress, content in frames:
                if content is not None:
                    later.append((len(self._table), self.size, content))
                self._table.add(frame, size)
                self._emit(frame)
                count(progress)
        known = [(number, offset, stored(content())) for number, offset, content in later]
        for number, _, frame in known:
            self._table.replace(number, frame)
        self._emit(self._table.to_bytes())
        for _, offset, frame in known:
            assert self._rewrite is not None
            self._rewrite(offset, frame)

    def _frame(self, piece: Piece) -> tuple[bytes, int, int, Later | None]:
        """The frame, and what is to be noted of its content, which nobody needs any more."""
        return self._compressed(piece), len(piece.content), piece.progress, piece.later

    def _compressed(self, piece: Piece) -> bytes:
        if piece.level == STORED:
            return stored(piece.content)
        compressors: dict[int, Callable[[bytes], bytes]]
        compressors = self._local.__dict__.setdefault("compressors", {})
        if piece.level not in compressors:
            compressors[piece.level] = compressor(piece.level)
        frame = compressors[piece.level](piece.content)
        piece.check(checksum_of(frame))
        return frame

    def _emit(self, data: bytes) -> None:
        self._out.write(data)
        self.size += len(data)


def stored(content: bytes) -> bytes:
    """A zstd frame that holds `content` as it is: RFC 8878, 3.1.1, "Raw_Block"."""
    parts = [_FRAME_HEADER.pack(_ZSTD_MAGIC, _SIZE_AND_CHECKSUM, len(content))]
    for start in range(0, len(content) or 1, _BLOCK_SIZE):
        block = content[start : start + _BLOCK_SIZE]
        is_last = start + _BLOCK_SIZE >= len(content)
        parts += [(len(block) << 3 | is_last).to_bytes(3, "little"), block]
    checksum = xxh64(content).intdigest() & 0xFFFFFFFF
    return b"".join([*parts, checksum.to_bytes(4, "little")])
