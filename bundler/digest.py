"""Content by its name: digests, blobs, and a reader that cannot be fooled."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bundler.errors import DamagedError, shown

SHA256 = re.compile(r"[0-9a-f]{64}")
SHA1 = re.compile(r"[0-9a-f]{40}")
"""By which git names commits and blobs alike."""
COPY_SIZE = 1 << 20
"""Bytes moved in one step wherever a stream is copied; hashlib lets other threads run meanwhile."""


class Readable(Protocol):
    """Anything with a `read`."""

    def read(self, size: int = -1, /) -> bytes: ...


class Stream(Readable, Protocol):
    """Something with a `read` that is closed when done; a read may give less than it was asked."""

    def close(self) -> None: ...


class Digest(bytes):
    """A sha256, made of its 64 lower-case hex digits; `Digest.parse(str(d)) == d`.

    There may be a hundred thousand, and its bytes take half the space of a text in an object.
    """

    __slots__ = ()

    def __new__(cls, hex: str) -> Digest:
        if not SHA256.fullmatch(hex):
            raise ValueError(f"not 64 lower-case hex digits: {shown(hex)}")
        return super().__new__(cls, bytes.fromhex(hex))

    @property
    def hex(self) -> str:  # type: ignore[override]  # of bytes it is a method
        """The hex digits."""
        return super().hex()

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `sha256:<64 hex>`. Raises ValueError for anything else."""
        algorithm, colon, digits = text.partition(":")
        if algorithm != "sha256" or not colon:
            raise ValueError(f"not of the form sha256:<64 hex digits>: {shown(text)}")
        return cls(digits)

    @classmethod
    def of(cls, content: bytes) -> Digest:
        """The digest of `content`."""
        return super().__new__(cls, hashlib.sha256(content).digest())

    def __str__(self) -> str:
        return f"sha256:{self.hex}"

    def __repr__(self) -> str:
        return f"Digest({self.hex!r})"

    def __reduce__(self) -> tuple[type[Digest], tuple[str]]:
        return Digest, (self.hex,)


@dataclass(frozen=True, slots=True)
class Blob:
    """Content named by its digest. `size` is in bytes, uncompressed."""

    digest: Digest
    size: int

    @classmethod
    def of(cls, content: bytes) -> Blob:
        """The blob that holds `content`."""
        return cls(Digest.of(content), len(content))


def git_hash(size: int) -> hashlib._Hash:
    """The hash that names a blob of `size` bytes in git, before its content is added.

    Git names a blob by a header and the content: git-scm.com, "Git Internals - Git Objects".
    """
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def git_name(content: bytes) -> str:
    """What git calls a blob of that content."""
    sha1 = git_hash(len(content))
    sha1.update(content)
    return sha1.hexdigest()


def digest_of(content: Readable, count: Callable[[int], None]) -> Digest:
    """The digest of a stream, read to its end; `count` gets the bytes of each step."""
    sha256 = hashlib.sha256()
    while data := content.read(COPY_SIZE):
        sha256.update(data)
        count(len(data))
    return Digest(sha256.hexdigest())


class Verifier:
    """Tells whether bytes that come by, in their order, are those of one blob.

    `what` names the content in errors. `git_sha1`, git's own name of the content, is compared as
    well where it is given.
    """

    __slots__ = ("_blob", "_git_hash", "_git_sha1", "_sha256", "_what", "left")

    def __init__(self, blob: Blob, what: str, git_sha1: str | None = None) -> None:
        self._blob = blob
        self._what = what
        self._sha256 = hashlib.sha256()
        self._git_sha1 = git_sha1
        self._git_hash = None if git_sha1 is None else git_hash(blob.size)
        self.left = blob.size
        """Bytes that are still to come; below 0 if too many came."""

    def update(self, data: bytes | memoryview) -> None:
        """Take note of the next bytes."""
        self._sha256.update(data)
        if self._git_hash is not None:
            self._git_hash.update(data)
        self.left -= len(data)

    def finish(self) -> None:
        """No more bytes come. Raises DamagedError if those that came are not the blob."""
        if self.left > 0:
            got = self._blob.size - self.left
            raise DamagedError(f"{self._what} ends after {got:,} of {self._blob.size:,} bytes")
        if self.left < 0 or self._sha256.digest() != self._blob.digest:
            found, promised = self._sha256.hexdigest(), self._blob.digest.hex
            raise DamagedError(
                f"{self._what} holds other bytes than promised "
                f"(sha256 {found[:12]}…, not {promised[:12]}…)"
            )
        if self._git_hash is not None and self._git_hash.hexdigest() != self._git_sha1:
            raise DamagedError(f"{self._what} is not what its etag {self._git_sha1} says")


class VerifiedReader:
    """Read exactly the bytes of one blob; the last of them only if all of them are right.

    Never takes more than `blob.size` bytes from `source`. The read that would hand out the last
    byte raises DamagedError instead when the source ended early or the digest differs, so that no
    reader can finish without having checked. `what` names the content in that error, `git_sha1` is
    as in `Verifier`.
    """

    def __init__(
        self, source: Readable, blob: Blob, what: str, git_sha1: str | None = None
    ) -> None:
        self._source = source
        self._verifier = Verifier(blob, what, git_sha1)
        self._checked = False

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes, by default all that are left; none at the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(COPY_SIZE), b""))
        if self._checked:
            return b""
        wanted = min(size, self._verifier.left)
        data = self._source.read(wanted)
        self._verifier.update(data)
        if self._verifier.left == 0 or (wanted and not data):
            self._verifier.finish()
            self._checked = True
        return data
