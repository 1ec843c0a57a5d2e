"""What stands where in the content of a bundle: the manifest, then blobs. See FORMAT.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bundler.digest import Blob, Digest
from bundler.manifest import FileEntry, Manifest, Snapshot
from bundler.relative import RelativePath

MANIFEST_NAME = "manifest.json"
BLOCK = 512
"""Bytes: the unit of tar."""
LARGE = 1 << 20
"""Bytes from which a blob has frames of its own."""
END = bytes(2 * BLOCK)
"""What a tar ends with."""


@dataclass(frozen=True, slots=True)
class Member:
    """One blob in the tar. Offsets are in the uncompressed content, in bytes."""

    blob: Blob
    start: int
    path: RelativePath
    model: str
    """The file of a snapshot that mentions the blob first."""
    git_sha1: str | None
    """Git's name of the content, where an etag states it."""

    @property
    def what(self) -> str:
        """For messages."""
        return f"{self.path} of {self.model}"

    @property
    def name(self) -> str:
        """The name in the tar: a digest, so it can never lead anywhere."""
        return member_name(self.blob.digest)

    @property
    def content_start(self) -> int:
        """Where the content starts, after the header."""
        return self.start + BLOCK

    @property
    def content_end(self) -> int:
        """Where the content ends and its padding starts."""
        return self.content_start + self.blob.size

    @property
    def end(self) -> int:
        """Where the next member starts."""
        return self.start + BLOCK + padded(self.blob.size)

    @property
    def header(self) -> bytes:
        """The one header that it can have."""
        return header_of(self.name, self.blob.size)


def member_name(digest: Digest) -> str:
    """What the blob of that digest is called in the tar."""
    return f"blobs/sha256/{digest.hex}"


def members(manifest: Manifest, manifest_size: int) -> Iterator[Member]:
    """Every member after the manifest, in their order: small blobs, then large ones."""
    position = BLOCK + padded(manifest_size)
    git_names = manifest.git_names()
    for snapshot, entry in _small_first(manifest.carried()):
        git_sha1 = git_names.get(entry.blob.digest)
        member = Member(entry.blob, position, entry.path, snapshot.name, git_sha1)
        yield member
        position = member.end


def _small_first(
    contents: Iterator[tuple[Snapshot, FileEntry]],
) -> Iterator[tuple[Snapshot, FileEntry]]:
    """Small blobs, then large ones, which are few, each in their order."""
    large = []
    for content in contents:
        if content[1].blob.size < LARGE:
            yield content
        else:
            large.append(content)
    yield from large


def header_of(name: str, size: int) -> bytes:
    """The one header that a member of this name and size has: GNU tar's, with nothing in it.

    Sizes of 8 GiB and more are in base 256: GNU tar manual, "Extensions to the ustar format".
    """
    in_octal = b"%011o\0" % size
    told = in_octal if len(in_octal) == 12 else b"\x80" + size.to_bytes(11, "big")
    start = b"%b0000644\0%b%b00000000000\0" % (name.encode().ljust(100, b"\0"), 2 * _NOBODY, told)
    checksum = sum(start) + _SUM_OF_THE_REST
    return b"%b%06o\0 %b" % (start, checksum, _AFTER_THE_CHECKSUM)


_NOBODY = b"0000000\0"
_AFTER_THE_CHECKSUM = (b"0" + bytes(100) + b"ustar  \0").ljust(BLOCK - 156, b"\0")
_SUM_OF_THE_REST = sum(_AFTER_THE_CHECKSUM) + 8 * ord(" ")
"""The checksum is taken with blanks in its own place."""


def padded(size: int) -> int:
    """Bytes that a content of `size` bytes takes."""
    return size + len(padding(size))


def padding(size: int) -> bytes:
    """What follows a content of `size` bytes."""
    return bytes(-size % BLOCK)
