"""Content that one run reads twice, known again by the checksums that its frames have anyway.

Content is hashed to be named, and read again to be packed: it must still be the same. A second hash
would take as long as compressing half of it. zstd notes the XXH64 of the content of every frame, so
it is enough to have noted that as well when the content was hashed. It tells what a disk or another
program changed meanwhile; what was made to have an equal checksum, the digests tell on arrival.
"""

from __future__ import annotations

from array import array

from xxhash import xxh64

from bundler.seek_table import PIECE_SIZE


class Checksums:
    """Those of the pieces of a content, however it comes; each the low 32 bits of XXH64.

    RFC 8878, 3.1.1, "Content_Checksum".
    """

    def __init__(self) -> None:
        self._whole = array("I")
        self._piece = xxh64()
        self._left = PIECE_SIZE

    def update(self, data: bytes) -> None:
        """Take note of the next bytes."""
        rest = memoryview(data)
        while rest:
            part = rest[: self._left]
            self._piece.update(part)
            self._left -= len(part)
            rest = rest[len(part) :]
            if not self._left:
                self._end_piece()

    def finish(self) -> array[int]:
        """No more bytes come: the checksum of each piece, the last of which may be shorter."""
        if self._left < PIECE_SIZE:
            self._end_piece()
        return self._whole

    def _end_piece(self) -> None:
        self._whole.append(self._piece.intdigest() & 0xFFFFFFFF)
        self._piece = xxh64()
        self._left = PIECE_SIZE
