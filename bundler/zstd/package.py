"""zstd by the package zstandard."""

from __future__ import annotations

from collections.abc import Callable

import zstandard

from bundler.digest import Readable
from bundler.zstd import MAX_WINDOW, Decompress, check_size, damaged


def compressor(level: int) -> Callable[[bytes], bytes]:
    """What makes a frame of some content, with its size and checksum. For one thread."""
    return zstandard.ZstdCompressor(
        level=level, write_checksum=True, write_content_size=True
    ).compress


def decompressor() -> Decompress:
    """As `Zstd` has it."""
    decompress = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompress

    def content(frame: bytes, size: int) -> bytes:
        try:
            check_size(zstandard.get_frame_parameters(frame).content_size, size)
            found: bytes = decompress(frame, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise damaged(error) from None
        return found

    return content


def reader(source: Readable) -> _Reader:
    """As `Zstd` has it."""
    return _Reader(source)


class _Reader:
    def __init__(self, source: Readable) -> None:
        self._content = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(
            source,  # type: ignore[arg-type]  # any object with a read will do
            read_across_frames=True,
        )

    def read(self, size: int, /) -> bytes:
        try:
            return self._content.read(size)
        except zstandard.ZstdError as error:
            raise damaged(error) from None

    def close(self) -> None:
        pass
