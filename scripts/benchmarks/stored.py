"""A bundle as it were if nothing in it shrank, at the cost of next to no disk where it is zeros.

    python -m benchmarks.stored BUNDLE NEW

Every frame is written anew with its content as it is, which is as good a zstd frame as any (RFC
8878, raw blocks); zeros become holes of the file. The seek table follows, as the Zstandard seekable
format 0.1.0 has it.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import BinaryIO

import zstandard

ENTRY = struct.Struct("<III")
FOOTER = struct.Struct("<IBI")
FRAME_HEAD = struct.Struct("<IBI")
MAGIC = 0xFD2FB528
ONE_SEGMENT_WITH_SIZE_AND_CHECKSUM = 0xA4
SKIPPABLE_MAGIC = 0x184D2A5E
BLOCK = 128 << 10


def store(bundle: BinaryIO, new: BinaryIO) -> None:
    """Write to `new` what `bundle` holds."""
    bundle.seek(-FOOTER.size, os.SEEK_END)
    footer = bundle.read(FOOTER.size)
    count, _, _ = FOOTER.unpack(footer)
    bundle.seek(-FOOTER.size - count * ENTRY.size, os.SEEK_END)
    entries = bundle.read(count * ENTRY.size)
    bundle.seek(0)
    decompressor = zstandard.ZstdDecompressor()
    table = b""
    for size, content_size, checksum in ENTRY.iter_unpack(entries):
        content = decompressor.decompress(bundle.read(size))
        start = new.tell()
        new.write(FRAME_HEAD.pack(MAGIC, ONE_SEGMENT_WITH_SIZE_AND_CHECKSUM, content_size))
        for begin in range(0, content_size, BLOCK):
            block = content[begin : begin + BLOCK]
            is_last = begin + BLOCK >= content_size
            new.write((len(block) << 3 | is_last).to_bytes(3, "little"))
            _write_with_holes(new, block)
        new.write(checksum.to_bytes(4, "little"))
        table += ENTRY.pack(new.tell() - start, content_size, checksum)
    new.write(struct.pack("<II", SKIPPABLE_MAGIC, len(table) + len(footer)) + table + footer)


def _write_with_holes(new: BinaryIO, block: bytes) -> None:
    if block == bytes(len(block)):
        new.seek(len(block), os.SEEK_CUR)
    else:
        new.write(block)


def main() -> None:
    """Do so with the files that the arguments name."""
    with open(sys.argv[1], "rb") as bundle, open(sys.argv[2], "wb") as new:
        store(bundle, new)


if __name__ == "__main__":
    main()
