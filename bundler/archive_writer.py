"""The bundle file, as it is written: the manifest first, then blobs by digest, in frames.

FORMAT.md specifies it; what is written so is read by `archive`.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import BinaryIO

from bundler.digest import Blob, Digest, Verifier
from bundler.errors import DamagedError, FormatError
from bundler.frame_writer import STORED, Check, FrameWriter, Output, Piece, Rewrite, unchecked
from bundler.manifest import Manifest
from bundler.manifest_rules import MAX_MANIFEST_SIZE, check_extent
from bundler.members import (
    END,
    LARGE,
    MANIFEST_NAME,
    Member,
    header_of,
    member_name,
    members,
    padding,
)
from bundler.parallel import Count
from bundler.seek_table import FRAME_SIZE, PIECE_SIZE

_STORED = 64 << 10
"""Bytes; a manifest up to this size is not compressed, since it would not save a thing that counts,
and its frame is then as long whatever the digests in it are."""


@dataclass(frozen=True, slots=True)
class Levels:
    """Of zstd: for blobs from LARGE bytes on, which are weights as a rule, and for what is smaller,
    which is text."""

    large: int = 1
    small: int = 4

    @classmethod
    def all(cls, level: int) -> Levels:
        """The same for both."""
        return cls(level, level)


@dataclass(frozen=True, slots=True)
class Written:
    """A bundle's manifest, its id, which is the digest of that, and its size in bytes."""

    manifest: Manifest
    digest: Digest
    size: int
    names: Mapping[Digest, Digest]
    """The digests of what was `unnamed`, by what stood in for them."""


def write_bundle(
    out: Output,
    manifest: Manifest,
    open_blob: Callable[[Blob], BinaryIO],
    count: Count,
    *,
    checksums: Callable[[Blob], array[int] | None] = lambda _: None,
    levels: Levels = Levels(),
    jobs: int | None = None,
    unnamed: Collection[Digest] = (),
    rewrite: Rewrite | None = None,
) -> Written:
    """Write a bundle of `manifest` to `out`.

    Each blob is taken from `open_blob` and verified on the way; `count` is told how many bytes of
    them are done. `checksums` has those that large blobs had when their digests were compared a
    moment ago: they are compared with these alone. `unnamed`: digests that only stand in
    `manifest` for those of large blobs which nobody has read yet, and which are unlike all others.
    Their own are found on the way, and written by `rewrite` where they belong, so that the bundle
    is the one of the manifest that names them (`may_lack_names`).

    Raises DamagedError if a blob is not what the manifest says, and FormatError if the manifest
    could not be read again.
    """
    manifest.check()  # What cannot be read again is not written.
    content = manifest.to_bytes()
    if len(content) > MAX_MANIFEST_SIZE:
        raise FormatError(
            f"the manifest would take {len(content):,} bytes, more than the {MAX_MANIFEST_SIZE:,} "
            "that a bundle may have: pack fewer models into one bundle"
        )
    check_extent(content)
    archive = _Archive(manifest, open_blob, checksums, levels, unnamed)
    frames = FrameWriter(out, jobs, rewrite)
    digest = Digest.of(content)
    pieces = chain(archive.start(content), archive.blobs(len(content)))
    del content  # It may be long, and nobody needs it once it is written.
    frames.write(pieces, count)
    if unnamed:
        manifest = archive.named_manifest()
        digest = Digest.of(manifest.to_bytes())
    return Written(manifest, digest, frames.size, archive.names)


def may_lack_names(manifest: Manifest) -> bool:
    """Whether its frame is as long whatever the digests in it are, so that they may come later."""
    return len(manifest.to_bytes()) <= _STORED


class _Archive:
    """What each frame of a bundle holds."""

    def __init__(
        self,
        manifest: Manifest,
        open_blob: Callable[[Blob], BinaryIO],
        checksums: Callable[[Blob], array[int] | None],
        levels: Levels,
        unnamed: Collection[Digest],
    ) -> None:
        self._manifest = manifest
        self._open_blob = open_blob
        self._checksums = checksums
        self._levels = levels
        self._unnamed = unnamed
        self.names: dict[Digest, Digest] = {}
        """Of what was unnamed, by its stand-ins, as far as it was read."""

    def start(self, content: bytes) -> Iterator[Piece]:
        """The manifest, of that content."""
        if len(content) <= _STORED:

            def named() -> bytes:
                return _whole_member(self.named_manifest().to_bytes())

            start = _whole_member(content)
            yield Piece(start, STORED, later=named if self._unnamed else None)
        else:
            parts = _SmallThings(self._levels.small)
            parts.add(header_of(MANIFEST_NAME, len(content)))
            for position in range(0, len(content), FRAME_SIZE):
                parts.add(content[position : position + FRAME_SIZE])
                if parts.is_full:
                    yield parts.cut()
            parts.add(padding(len(content)))
            while not parts.is_empty:
                yield parts.cut()

    def blobs(self, manifest_size: int) -> Iterator[Piece]:
        """Behind a manifest of so many bytes: small blobs together, then large ones in pieces."""
        small = _SmallThings(self._levels.small)
        for member in members(self._manifest, manifest_size):
            size = member.blob.size
            if size < LARGE:
                small.add(member.header, self._whole(member), padding(size), progress=size)
                if small.is_full:
                    yield small.cut()
            else:
                if not small.is_empty:
                    yield small.cut()
                yield from self._large(member)
                small.add(padding(size))
        small.add(END)
        while not small.is_empty:
            yield small.cut()

    def named_manifest(self) -> Manifest:
        """The manifest with all names, when everything is written.

        Raises DamagedError if a content turned out to be equal to another.
        """
        manifest = self._manifest.renamed(self.names)
        if len([*manifest.blobs()]) < len([*self._manifest.blobs()]):
            raise DamagedError("a file was changed while it was packed: pack again")
        return manifest

    def _large(self, member: Member) -> Iterator[Piece]:
        stand_in, size = member.blob.digest, member.blob.size
        if stand_in in self._unnamed:

            def header() -> bytes:
                return header_of(member_name(self.names[stand_in]), size)

            yield Piece(member.header, STORED, later=header)
        else:
            yield Piece(member.header, STORED)
        for data, check in self._checked(member):
            yield Piece(data, self._levels.large, len(data), check)

    def _checked(self, member: Member) -> Iterator[tuple[bytes, Check]]:
        """The content of a large blob in pieces, and what the checksum of each must pass."""
        known = self._checksums(member.blob)
        if known is not None:
            for number, data in enumerate(self._read(member)):
                yield data, partial(_compare, member, known[number])
        else:
            is_named = member.blob.digest not in self._unnamed
            for data in self._verified(member) if is_named else self._named(member):
                yield data, unchecked

    def _whole(self, member: Member) -> bytes:
        """All of a small blob. Raises DamagedError if it is not that of its digest."""
        with self._open_blob(member.blob) as file:
            content = _read_full(file, member.blob.size + 1)
        verifier = Verifier(member.blob, member.what, member.git_sha1)
        verifier.update(content)
        verifier.finish()
        return content

    def _verified(self, member: Member) -> Iterator[bytes]:
        """The content of a blob in pieces. Raises DamagedError if it is not that of its digest."""
        verifier = Verifier(member.blob, member.what, member.git_sha1)
        for data in self._read(member):
            verifier.update(data)
            yield data
        verifier.finish()

    def _named(self, member: Member) -> Iterator[bytes]:
        """The content of a blob in pieces; at the end its name is known."""
        sha256 = hashlib.sha256()
        for data in self._read(member):
            sha256.update(data)
            yield data
        self.names[member.blob.digest] = Digest(sha256.hexdigest())

    def _read(self, member: Member) -> Iterator[bytes]:
        """All bytes of a blob, in pieces. Raises DamagedError if it has more or fewer."""
        size = left = member.blob.size
        with self._open_blob(member.blob) as file:
            while left and (data := _read_full(file, min(PIECE_SIZE, left))):
                left -= len(data)
                yield data
            if left or file.read(1):
                how = f"ends after {size - left:,} of" if left else "has more than"
                raise DamagedError(f"{member.what} {how} {size:,} bytes")


def _whole_member(content: bytes) -> bytes:
    """The manifest of that content, as it stands in the tar."""
    return header_of(MANIFEST_NAME, len(content)) + content + padding(len(content))


def _compare(member: Member, expected: int, checksum: int) -> None:
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

    def add(self, *parts: bytes, progress: int = 0) -> None:
        """Append all of these, of which progress tells so many bytes."""
        for part in parts:
            self._content += part
        self._progress += progress

    @property
    def is_full(self) -> bool:
        """Whether there is as much as goes into a frame."""
        return len(self._content) >= FRAME_SIZE

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing."""
        return not self._content

    def cut(self) -> Piece:
        """As much as goes into a frame; what is over comes into the next."""
        with memoryview(self._content) as content:
            piece = Piece(bytes(content[:FRAME_SIZE]), self._level, self._progress)
        del self._content[:FRAME_SIZE]
        self._progress = 0
        return piece
