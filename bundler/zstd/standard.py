"""zstd by Python's own library, from 3.14 on."""

from __future__ import annotations

from compression.zstd import DecompressionParameter, ZstdDecompressor, ZstdError, get_frame_info

from bundler.digest import Readable
from bundler.errors import DamagedError
from bundler.zstd import MAX_WINDOW, Decompress, check_size, damaged

_OPTIONS = {DecompressionParameter.window_log_max: MAX_WINDOW.bit_length() - 1}
_INPUT_SIZE = 128 << 10
"""Bytes; what zstd recommends for a stream."""


def decompressor() -> Decompress:
    """As `Zstd` has it."""
    return _content


def _content(frame: bytes, size: int) -> bytes:
    decoder = ZstdDecompressor(options=_OPTIONS)  # Which is for one frame.
    try:
        check_size(get_frame_info(frame).decompressed_size, size)
        content: bytes = decoder.decompress(frame, size + 1)
    except ZstdError as error:
        raise _refused(error) from None
    if len(content) != size or not decoder.eof or decoder.unused_data:
        raise damaged("the frame does not end where it should")
    return content


def _refused(error: ZstdError) -> DamagedError:
    return damaged(str(error).rpartition(": ")[2].partition(".")[0])


def reader(source: Readable) -> _Reader:
    """As `Zstd` has it."""
    return _Reader(source)


class _Reader:
    def __init__(self, source: Readable) -> None:
        self._source = source
        self._decoder = ZstdDecompressor(options=_OPTIONS)

    def read(self, size: int, /) -> bytes:
        while True:
            data = b""
            if self._decoder.eof:
                data = self._decoder.unused_data or self._source.read(_INPUT_SIZE)
                if not data:
                    return b""
                self._decoder = ZstdDecompressor(options=_OPTIONS)
            elif self._decoder.needs_input:
                data = self._source.read(_INPUT_SIZE)
                if not data:
                    return b""
            try:
                content: bytes = self._decoder.decompress(data, size)
            except ZstdError as error:
                raise _refused(error) from None
            if content:
                return content

    def close(self) -> None:
        pass
