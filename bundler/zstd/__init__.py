"""zstd, by what is here of it: the package zstandard, Python's own (3.14), or the program zstd.

One module for each. The program only reads from start to end, so any frame is to be had of the
other two alone. Only the package compresses: whoever packs has installed it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Protocol

from bundler.digest import Readable
from bundler.errors import DamagedError, RequestError

MAX_WINDOW = 8 << 20
"""Bytes; what the zstd specification recommends that every decoder supports."""

Decompress = Callable[[bytes, int], bytes]
"""The content of a frame, which is of the size given. Raises DamagedError. For one thread."""


class Reader(Protocol):
    """The content of a stream of frames, one after the other."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most `size`; none at the end, or where the stream was cut short.

        Raises DamagedError, and OSError of the stream.
        """

    def close(self) -> None:
        """No more will be read. The stream stays open."""


class Zstd(Protocol):
    """What each of the three offers."""

    def reader(self, source: Readable, /) -> Reader:
        """The content of `source`."""

    @property
    def decompressor(self) -> Callable[[], Decompress] | None:
        """Makes what decompresses single frames; None if that cannot be done."""


@cache
def zstd() -> Zstd:
    """The first of the three that is here. Raises RequestError if none is."""
    for name in ("package", "standard"):
        try:
            found: Zstd = import_module(f"bundler.zstd.{name}")
        except ImportError:
            continue
        return found
    if shutil.which("zstd") is None:
        raise RequestError(
            "nothing here can read zstd: install the package zstandard or the program zstd, "
            "or use Python 3.14"
        )
    from bundler.zstd import program

    return program


def damaged(said: object) -> DamagedError:
    """What a decoder complained of, as one of bundler's errors."""
    return DamagedError(f"the compressed data is damaged ({str(said).rpartition('error: ')[2]})")


def check_size(claimed: int | None, size: int) -> None:
    """Raise DamagedError if a frame claims another size than the seek table.

    A decoder allocates what the frame claims to hold: to be called before that.
    """
    if claimed != size:
        raise DamagedError("a frame and the seek table tell different sizes")
