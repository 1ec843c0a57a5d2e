"""The table at the end of a bundle that tells where each frame is.

As the Zstandard seekable format 0.1.0 has it (facebook/zstd, contrib/seekable_format), with
checksums: a skippable frame, so that decoders which do not know it pass it over.
"""

from __future__ import annotations

import os
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import BinaryIO

from bundler.errors import DamagedError
from bundler.volume_list import MAX_LIST_SIZE, size_of_list_at_end

FRAME_SIZE = 4 << 20
"""Bytes of content in a full frame: small enough to share out, large enough to compress well."""
PIECE_SIZE = 1 << 20
"""Bytes of content in the frames of a large blob. They compress as well as larger ones would, and
what a processor works on stays in its cache."""
MAX_COMPRESSED_FRAME = FRAME_SIZE + (64 << 10)
"""Bytes; content that does not shrink grows by much less than this."""

_SKIPPABLE = struct.Struct("<II")
_ENTRY = struct.Struct("<III")
_FOOTER = struct.Struct("<IBI")
_SKIPPABLE_MAGIC = 0x184D2A5E
_SEEKABLE_MAGIC = 0x8F92EAB1
_WITH_CHECKSUMS = 0x80


def checksum_of(frame: bytes) -> int:
    """What a frame ends with: the low 32 bits of the XXH64 of its content."""
    return int.from_bytes(frame[-4:], "little")


class SeekTableWriter:
    """Collects what the table tells; twelve bytes for each frame."""

    def __init__(self) -> None:
        self._entries = bytearray()

    def __len__(self) -> int:
        """How many frames were noted."""
        return len(self._entries) // _ENTRY.size

    def add(self, frame: bytes, content_size: int) -> None:
        """Note the next frame. Its own checksum is the one that the table asks for: XXH64."""
        self._entries += _ENTRY.pack(len(frame), content_size, checksum_of(frame))

    def replace(self, number: int, frame: bytes) -> None:
        """Another frame, of the same size and with as much content, stands in place of that one."""
        _, content_size, _ = _ENTRY.unpack_from(self._entries, number * _ENTRY.size)
        entry = (len(frame), content_size, checksum_of(frame))
        _ENTRY.pack_into(self._entries, number * _ENTRY.size, *entry)

    def to_bytes(self) -> bytes:
        """The table as the last frame of the file."""
        footer = _FOOTER.pack(len(self), _WITH_CHECKSUMS, _SEEKABLE_MAGIC)
        head = _SKIPPABLE.pack(_SKIPPABLE_MAGIC, len(self._entries) + len(footer))
        return head + self._entries + footer


class SeekTable:
    """Where each frame starts, in the file and in the content."""

    def __init__(self, compressed_sizes: array[int], content_sizes: array[int]) -> None:
        self.file_offsets = array("Q", accumulate(compressed_sizes, initial=0))
        self.content_offsets = array("Q", accumulate(content_sizes, initial=0))

    @property
    def content_size(self) -> int:
        """Bytes of content in all frames."""
        return self.content_offsets[-1]

    def __len__(self) -> int:
        return len(self.file_offsets) - 1

    def frame_at(self, offset: int) -> int:
        """The number of the frame that holds the content byte at `offset`."""
        return bisect_right(self.content_offsets, offset) - 1

    def frames_at(self, spans: Iterable[tuple[int, int]]) -> Iterator[int]:
        """The numbers of the frames that hold something of the spans, which rise; each once."""
        number = 0
        for start, end in spans:
            number = max(number, self.frame_at(start))
            while number < len(self) and self.content_offsets[number] < end:
                yield number
                number += 1


def _read(file: BinaryIO, size: int) -> bytes:
    """`size` bytes of `file`, which had them a moment ago."""
    data = b""
    while len(data) < size:
        more = file.read(size - len(data))
        if not more:
            raise DamagedError("the bundle became shorter while it was read: copy it again")
        data += more
    return data


def _read_footer(file: BinaryIO, size: int) -> int | None:
    """The number of frames that `file` announces before the offset `size`; None if it does not."""
    if size < _SKIPPABLE.size + _FOOTER.size:
        return None
    file.seek(size - _FOOTER.size)
    count, descriptor, magic = _FOOTER.unpack(_read(file, _FOOTER.size))
    if magic != _SEEKABLE_MAGIC or descriptor != _WITH_CHECKSUMS:
        return None
    return int(count)


def read_seek_table(file: BinaryIO, max_frames: int) -> SeekTable:
    """Read the table at the end of `file`.

    Raises DamagedError if there is none (the file was cut short), if it does not account for every
    byte of the file, or cannot be read; tables of more than `max_frames` entries are refused before
    reading.
    """
    try:
        return _read_table(file, max_frames)
    except OSError as error:
        raise DamagedError(f"the bundle cannot be read: {error.strerror}") from None


def _read_table(file: BinaryIO, max_frames: int) -> SeekTable:
    size = file.seek(0, os.SEEK_END)
    count = _read_footer(file, size)
    if count is None:
        # Volumes may have been joined with their list.
        start = file.seek(max(0, size - MAX_LIST_SIZE))
        size -= size_of_list_at_end(_read(file, size - start))
        count = _read_footer(file, size)
    if count is None:
        raise DamagedError(
            "the bundle does not end as it should: it was not copied whole, copy it again"
        )
    table_size = _SKIPPABLE.size + count * _ENTRY.size + _FOOTER.size
    if count > max_frames or table_size > size:
        raise DamagedError("the seek table at the end of the bundle is damaged: copy it again")
    file.seek(size - table_size)
    magic, length = _SKIPPABLE.unpack(_read(file, _SKIPPABLE.size))
    compressed_sizes, content_sizes = array("Q"), array("Q")
    for compressed, content, _ in _ENTRY.iter_unpack(_read(file, count * _ENTRY.size)):
        if not (0 < compressed <= MAX_COMPRESSED_FRAME and 0 < content <= FRAME_SIZE):
            raise DamagedError("the seek table at the end of the bundle is damaged: copy it again")
        compressed_sizes.append(compressed)
        content_sizes.append(content)
    table = SeekTable(compressed_sizes, content_sizes)
    if (magic, length) != (_SKIPPABLE_MAGIC, table_size - _SKIPPABLE.size) or (
        table.file_offsets[-1] + table_size != size
    ):
        raise DamagedError(
            "the seek table does not match the length of the bundle: "
            "it was not copied whole, copy it again"
        )
    return table
