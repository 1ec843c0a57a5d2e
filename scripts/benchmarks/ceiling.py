"""What this machine takes for the work itself: hashing, zstd and writing, with nothing in between.

A program of its own, so that whoever measures memory stays small:

    python -m benchmarks.ceiling DATA FOLDER LEVEL

Rates in bytes a second, each of one thread on frames of 4 MiB that are spread over DATA, as the
best of two tries. Writing is measured buffered and past the page cache (O_DIRECT), in FOLDER.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import zstandard

from benchmarks.runs import BLOCK, files_below, size_of

FRAMES = 64
TRIES = 2
MOST_WRITTEN = 512 << 20
"""Bytes."""


@dataclass(frozen=True)
class Writing:
    """How long a byte takes to be written: wall seconds, and seconds of a processor."""

    seconds: float
    processor: float


@dataclass(frozen=True)
class Ceiling:
    """Bytes of content a second and processor; `shrunk` is the share of them that zstd leaves."""

    hash: float
    compress: float
    decompress: float
    shrunk: float
    writing: dict[str, Writing]

    def pack(self, size: int, processors: int) -> float:
        """Seconds for hashing and compressing `size` bytes on all processors, and writing them."""
        work = size / self.hash + size / self.compress
        return self._with_write(work, size * self.shrunk, processors)

    def unpack(self, size: int, processors: int) -> float:
        """Seconds for decompressing and hashing `size` bytes on all processors, and writing."""
        work = size / self.hash + size / self.decompress
        return self._with_write(work, size, processors)

    def _with_write(self, work: float, written: float, processors: int) -> float:
        # Writing takes time of the disk, which nothing can make shorter, and of the processors.
        return min(
            max(way.seconds * written, (work + way.processor * written) / processors)
            for way in self.writing.values()
        )

    @classmethod
    def median(cls, measured: Sequence[dict[str, Any]]) -> Ceiling:
        """Of what `measure` said each time."""
        rates = {name: median(each[name] for each in measured) for name in _RATES}
        ways = {
            name: Writing(
                *(median(each["writing"][name][time] for each in measured) for time in _TIMES)
            )
            for name in measured[0]["writing"]
        }
        return cls(**rates, writing=ways)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return vars(self) | {"writing": {name: vars(way) for name, way in self.writing.items()}}


_RATES = ("hash", "compress", "decompress", "shrunk")
_TIMES = ("seconds", "processor")


def measure(data: Path, folder: Path, level: int) -> dict[str, Any]:
    """The fields of a Ceiling, as plain values."""
    frames = list(_frames(data))
    size = sum(map(len, frames))
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
    decompressor = zstandard.ZstdDecompressor()
    compressed = [compressor.compress(frame) for frame in frames]
    return {
        "hash": size / _best(lambda: [hashlib.sha256(frame).digest() for frame in frames]),
        "compress": size / _best(lambda: [len(compressor.compress(frame)) for frame in frames]),
        "decompress": size
        / _best(lambda: [len(decompressor.decompress(frame)) for frame in compressed]),
        "shrunk": sum(map(len, compressed)) / size,
        "writing": dict(_ways_to_write(folder / "written", min(size_of(data), MOST_WRITTEN))),
    }


def _frames(data: Path) -> Iterator[bytes]:
    """Pieces of the files' content, evenly spread over it."""
    files = sorted(files_below(data))
    total = sum(file.stat().st_size for file in files)
    step = max(1, total // FRAMES)
    begin, wanted = 0, 0
    for path in files:
        size = path.stat().st_size
        with open(path, "rb") as file:
            while wanted < begin + size:
                file.seek(wanted - begin)
                yield file.read(BLOCK)
                wanted += step
        begin += size


def _best(work: Callable[[], object]) -> float:
    def timed() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return min(timed() for _ in range(TRIES))


def _ways_to_write(path: Path, size: int) -> Iterator[tuple[str, dict[str, float]]]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    yield "buffered", _written(path, size, flags, sync=False)
    yield "buffered, synced", _written(path, size, flags, sync=True)
    with suppress(AttributeError, OSError):  # Not every system and file system has it.
        yield "O_DIRECT, synced", _written(path, size, flags | os.O_DIRECT, sync=True)


def _written(path: Path, size: int, flags: int, *, sync: bool) -> dict[str, float]:
    """Seconds a byte, of the shortest try."""
    block = mmap.mmap(-1, BLOCK * 2)  # Whose address suits O_DIRECT.
    block.write(os.urandom(len(block)))
    count = -(-size // len(block))
    size = count * len(block)
    tries = []
    for _ in range(TRIES):
        os.sync()
        file = os.open(path, flags)
        try:
            start, before = time.perf_counter(), time.process_time()
            os.posix_fallocate(file, 0, size)
            for _ in range(count):
                os.write(file, block)
            if sync:
                os.fdatasync(file)
            seconds, processor = time.perf_counter() - start, time.process_time() - before
        finally:
            os.close(file)
            os.unlink(path)
        tries.append((seconds / size, processor / size))
    seconds, processor = min(tries)
    return {"seconds": seconds, "processor": processor}


def main() -> None:
    """Measure what the arguments say, and print it as JSON."""
    data, folder, level = sys.argv[1:]
    print(json.dumps(measure(Path(data), Path(folder), int(level))))


if __name__ == "__main__":
    main()
