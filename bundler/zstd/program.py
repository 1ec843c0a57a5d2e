"""zstd by the program of that name, fed and read through pipes."""

from __future__ import annotations

import os
import selectors
import subprocess
from contextlib import suppress

from bundler.digest import Readable
from bundler.errors import DamagedError
from bundler.zstd import MAX_WINDOW, damaged

decompressor = None
"""The program reads from start to end."""
_INPUT_SIZE = 64 << 10
"""Bytes; what a pipe holds."""
_TIME_TO_END = 3
"""Seconds from the end of the content on."""


def reader(source: Readable) -> _Reader:
    """As `Zstd` has it."""
    return _Reader(source)


class _Reader:
    """Asks the source for more only while somebody waits for content, in that one's thread."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._left = memoryview(b"")
        """Of the source, what was read and not yet fed."""
        self._process = subprocess.Popen(
            ["zstd", "--decompress", "--stdout", "--quiet", f"--memory={MAX_WINDOW}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr  # noqa: PT018
        self._into, self._out_of = self._process.stdin, self._process.stdout
        self._complaints = self._process.stderr
        os.set_blocking(self._into.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._into, selectors.EVENT_WRITE)
        self._selector.register(self._out_of, selectors.EVENT_READ)

    def read(self, size: int, /) -> bytes:
        while True:
            ready = [key.fileobj for key, _ in self._selector.select()]
            if self._out_of in ready:
                data = os.read(self._out_of.fileno(), size)
                if not data:
                    self._check_end()
                return data
            self._feed()

    def _feed(self) -> None:
        if not self._left:
            self._left = memoryview(self._source.read(_INPUT_SIZE))
        try:
            if self._left:
                self._left = self._left[os.write(self._into.fileno(), self._left) :]
                return
        except BrokenPipeError:
            pass  # It has had enough, and its exit code tells why.
        self._stop_feeding()

    def _stop_feeding(self) -> None:
        if not self._into.closed:
            self._selector.unregister(self._into)
            self._into.close()

    def _check_end(self) -> None:
        """Raise DamagedError if the program did not end well."""
        self._stop_feeding()
        try:
            code = self._process.wait(_TIME_TO_END)
        except subprocess.TimeoutExpired:  # As 1.5.4 may hang when it has found a fault.
            self._process.kill()
            self._process.wait()
            raise damaged("zstd does not end") from None
        said = self._complaints.read().decode(errors="replace").split("\n")[0]
        if code < 0:
            raise DamagedError(f"the program zstd was killed (signal {-code}): run this again")
        if code > 0:
            raise damaged(said.rpartition(" : ")[2].strip() or f"zstd ended with {code}")

    def close(self) -> None:
        self._selector.close()
        self._process.kill()
        for pipe in (self._into, self._out_of, self._complaints):
            with suppress(OSError):
                pipe.close()
        self._process.wait()
