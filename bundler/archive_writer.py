"""The bundle file, as it is written: the manifest first, then blobs by digest, in frames.

FORMAT.md specifies it; what is written so is read by `archive`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from bundler.digest import Blob, Digest, Verifier
from bundler.errors import DamagedError, FormatError
from bundler.frames import FrameWriter, Output, Piece, unchecked
from bundler.manifest import MAX_MANIFEST_SIZE, Manifest
from bundler.members import END, LARGE, MANIFEST_NAME, Member, header_of, members, padding
from bundler.parallel import Count
from bundler.seek_table import FRAME_SIZE, PIECE_SIZE


@dataclass(frozen=True, slots=True)
class Levels:
    """Of zstd: for blobs from LARGE bytes on, which are weights as a rule, and for what is smaller,
    which is text."""

    large: int = 1
    small: int = 6

    @classmethod
    def all(cls, level: int) -> Levels:
        """The same for both."""
        return cls(level, level)


@dataclass(frozen=True, slots=True)
class Written:
    """A bundle's id, which is the digest of its manifest, and its size in bytes."""

    digest: Digest
    size: int


def write_bundle(
    out: Output,
    manifest: Manifest,
    open_blob: Callable[[Blob], BinaryIO],
    count: Count,
    *,
    checksums: Callable[[Blob], array[int] | None] = lambda _: None,
    levels: Levels = Levels(),
    jobs: int | None = None,
) -> Written:
    """Write a bundle of `manifest` to `out`.

    Each blob is taken from `open_blob` and verified on the way; `count` is told how many bytes of
    them are done. `checksums` has those that large blobs had when their digests were compared a
    moment ago: they are compared with these alone. Raises DamagedError if one is not what the
    manifest says, and FormatError if the manifest could not be read again.
    """
    content = manifest.to_bytes()
    if len(content) > MAX_MANIFEST_SIZE:
        raise FormatError(
            f"the manifest would take {len(content):,} bytes, more than the {MAX_MANIFEST_SIZE:,} "
            "that a bundle may have: pack fewer models into one bundle"
        )
    Manifest.from_bytes(content)  # What cannot be read again is not written.
    frames = FrameWriter(out, jobs)
    frames.write(_pieces(manifest, content, open_blob, checksums, levels), count)
    return Written(Digest.of(content), frames.size)


def _pieces(
    manifest: Manifest,
    content: bytes,
    open_blob: Callable[[Blob], BinaryIO],
    checksums: Callable[[Blob], array[int] | None],
    levels: Levels,
) -> Iterator[Piece]:
    """What each frame holds: the manifest, then small blobs together, then large ones in pieces."""
    start = header_of(MANIFEST_NAME, len(content)) + content + padding(len(content))
    for position in range(0, len(start), FRAME_SIZE):
        yield Piece(start[position : position + FRAME_SIZE], levels.small, 0)
    small = _SmallThings(levels.small)
    for member in members(manifest, len(content)):
        size = member.blob.size
        if size < LARGE:
            whole = b"".join((member.header, *_content(member, open_blob), padding(size)))
            yield from small.add(whole, size)
            continue
        yield from small.add(member.header)
        # The header goes before, so that no piece of the content is shifted by it.
        yield from small.cut()
        known = checksums(member.blob)
        for number, data in enumerate(_content(member, open_blob, is_known=known is not None)):
            check = unchecked if known is None else partial(_check, member, known[number])
            yield Piece(data, levels.large, len(data), check)
        yield from small.add(padding(size))
    yield from small.add(END)
    yield from small.cut()


def _content(
    member: Member, open_blob: Callable[[Blob], BinaryIO], *, is_known: bool = False
) -> Iterator[bytes]:
    """The content of a blob in pieces, compared with its digest, unless it `is_known` otherwise.

    Raises DamagedError.
    """
    verifier = None if is_known else Verifier(member.blob, member.what, member.git_sha1)
    left = member.blob.size
    with open_blob(member.blob) as file:
        while left and (data := _read_full(file, min(PIECE_SIZE, left))):
            left -= len(data)
            if verifier is not None:
                verifier.update(data)
            yield data
    if verifier is not None:
        verifier.finish()
    elif left:
        raise DamagedError(f"{member.what} ends {left:,} bytes too early")


def _check(member: Member, expected: int, checksum: int) -> None:
    if checksum != expected:
        raise DamagedError(f"{member.what} was changed while it was packed")


def _read_full(file: BinaryIO, size: int) -> bytes:
    """The next `size` bytes, and fewer only at the end, however they come."""
    data = file.read(size)
    while 0 < len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data


class _SmallThings:
    """Content that shares frames."""

    def __init__(self, level: int) -> None:
        self._level = level
        self._content = bytearray()
        self._progress = 0

    def add(self, data: bytes, progress: int = 0) -> Iterator[Piece]:
        """Append `data`, of which progress tells so many bytes; a piece if that is full."""
        self._content += data
        self._progress += progress
        if len(self._content) >= FRAME_SIZE:
            yield self._piece(FRAME_SIZE)

    def cut(self) -> Iterator[Piece]:
        """What is left, as a piece."""
        if self._content:
            yield self._piece(len(self._content))

    def _piece(self, size: int) -> Piece:
        piece = Piece(bytes(self._content[:size]), self._level, self._progress)
        del self._content[:size]
        self._progress = 0
        return piece
