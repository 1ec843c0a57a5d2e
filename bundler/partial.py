"""The bytes of an unfinished download: which of them are here, told again by the next process.

A file of one part, or of unknown size, is as long as what is here of it. A larger one is fetched in
several parts at once, each filled from its beginning. Behind the content, on a page of its own, a
table tells its size and the bytes here of every part, twice, each in eight little-endian bytes, and
the name of the boot that they were written in:

    content, with holes | size | written, of each part | on disk, of each part | boot

The table is mapped into memory: what a killed process has written is there. After a power cut, or
any other end of a boot, only what was synced counts, which is done now and then.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from contextlib import ExitStack
from pathlib import Path

PART_SIZE = 32 << 20
"""Bytes of a part: much beside what a request costs, little beside a file worth splitting."""
SYNC_SECONDS = 10.0
"""What a power cut may cost of a download."""
_MOST_LOCKS = 64
"""Parts that are written at once, hardly any two of them under one lock."""
_BOOT_SIZE = 36
_BOOT = Path("/proc/sys/kernel/random/boot_id")
"""Linux' name of this boot, proc(5); elsewhere all boots pass for one."""


class Partial:
    """The unfinished file at `path`, of a content of `size` bytes (None: unknown).

    It has `count` parts, numbered from 0. A context manager, open for writing inside, where several
    threads may write at once. Raises OSError.
    """

    def __init__(self, path: Path, size: int | None) -> None:
        self.path = path
        self._size = size
        self.count = 1 if size is None else max(1, -(-size // PART_SIZE))
        self._here, self._on_disk = self._read_table()
        self._synced_at = time.monotonic()
        self._lock = threading.Lock()
        self._locks = [threading.Lock() for _ in range(min(self.count, _MOST_LOCKS))]
        self._is_open = False

    @property
    def here(self) -> int:
        """Bytes that are here, of all parts."""
        return sum(self._here)

    @property
    def left(self) -> int:
        """Bytes that are not, as far as the size is known."""
        return 0 if self._size is None else self._size - self.here

    @property
    def missing(self) -> list[int]:
        """The parts that are not whole."""
        return [part for part in range(self.count) if self._here[part] != self._length(part)]

    def span(self, part: int) -> tuple[int, int | None]:
        """The first byte that a part lacks, and the byte it ends before; None: at the end."""
        start, length = part * PART_SIZE, self._length(part)
        return start + self._here[part], None if length is None else start + length

    def __enter__(self) -> Partial:
        """Open the file, which is made if there is none."""
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._is_open = True
        if self.count == 1:
            os.ftruncate(self._file, self.here)
        else:
            self._write_table()
            self._map = mmap.mmap(self._file, self._table.size, offset=self._table_start)
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, which goes if nothing is here."""
        self._is_open = False
        if self.count > 1:
            self._map.close()
        os.close(self._file)
        if not self.here:
            self.path.unlink(missing_ok=True)

    def write(self, offset: int, data: bytes) -> int:
        """Put `data`, which is the content from byte `offset` on; how much of it is new here.

        Nothing is written but what goes on where a part has got to, and nothing beyond the size.
        """
        new, rest = 0, memoryview(data)
        while rest:
            part = min(offset // PART_SIZE, self.count - 1)
            _, stop = self.span(part)
            piece = rest if stop is None else rest[: stop - offset]
            if not piece:
                break
            with self._locks[part % _MOST_LOCKS]:
                start, _ = self.span(part)
                fresh = piece[start - offset :] if offset <= start else piece[:0]
                if fresh:
                    here = self._here[part] + len(fresh)
                    _write_all(self._file, fresh, start)
                    if self.count > 1:
                        struct.pack_into("<Q", self._map, 8 + 8 * part, here)
                    self._here[part] = here  # Last: when all is here, nothing more is written.
            new += len(fresh)
            offset += len(piece)
            rest = rest[len(piece) :]
        self._sync_now_and_then()
        return new

    def finish(self, *, sync: bool = False) -> None:
        """Leave nothing in the file but the content, which is whole; nothing more is written.

        `sync`: have it on disk before, where no digest would tell that a power cut took some of it.
        """
        if sync:
            os.fsync(self._file)
        with self._lock:
            self._is_open = False
            if self.count > 1:
                self._map.close()
            os.ftruncate(self._file, self.here)

    def clear(self) -> None:
        """Forget every byte."""
        with ExitStack() as stack:
            for lock in (self._lock, *self._locks):
                stack.enter_context(lock)
            os.ftruncate(self._file, 0)
            self._here, self._on_disk = [0] * self.count, [0] * self.count
            self._write_table()

    def _length(self, part: int) -> int | None:
        if self._size is None:
            return None
        return min(PART_SIZE, self._size - part * PART_SIZE)

    def _read_table(self) -> tuple[list[int], list[int]]:
        """Bytes here of each part, and those that are on disk, by the file."""
        nothing = [0] * self.count
        try:
            with open(self.path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if self.count == 1:
                    fits = self._size is None or size <= self._size
                    return [size if fits else 0], nothing
                file.seek(self._table_start)
                table = file.read(self._table.size + 1)
        except OSError:
            return nothing, nothing
        if size == self._size:  # Finished, and not taken in yet.
            return [self._length(part) or 0 for part in range(self.count)], nothing
        if len(table) != self._table.size:
            return nothing, nothing
        of, *counts, boot = self._table.unpack(table)
        if of != self._size:
            return nothing, nothing
        lengths = [self._length(part) or 0 for part in range(self.count)] * 2
        counts = [n if n <= length else 0 for n, length in zip(counts, lengths, strict=True)]
        written, on_disk = counts[: self.count], counts[self.count :]
        return (written if boot == _boot() else [*on_disk]), on_disk

    @property
    def _table(self) -> struct.Struct:
        return struct.Struct(f"<Q{2 * self.count}Q{_BOOT_SIZE}s")

    @property
    def _table_start(self) -> int:
        return -(-(self._size or 0) // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY

    def _write_table(self) -> None:
        if self.count > 1:
            table = self._table.pack(self._size, *self._here, *self._on_disk, _boot())
            _write_all(self._file, memoryview(table), self._table_start)

    def _sync_now_and_then(self) -> None:
        if self.count == 1 or time.monotonic() < self._synced_at + SYNC_SECONDS:
            return
        self._synced_at = time.monotonic()
        written = [*self._here]
        os.fdatasync(self._file)
        with self._lock:
            if self._is_open:
                self._on_disk = written
                self._write_table()


def _write_all(file: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written


def _boot() -> bytes:
    try:
        return _BOOT.read_bytes().strip().ljust(_BOOT_SIZE)
    except OSError:
        return b" " * _BOOT_SIZE
