"""The folder of blobs that packing reads from: whole ones under their digests, partial ones beside.

    blobs/sha256/<64 hex>    whole and verified, read-only
    known/<64 hex>           what content an upstream identity turned out to be: `<digest> <size>`
    partial/<64 hex>         the first bytes of something under way, found again by its identity
    lock                     held by the one process that uses the store

A blob appears under its digest only by a rename of a whole, verified, synced file.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import BinaryIO

from bundler.digest import Blob, Digest, digest_of
from bundler.errors import TargetError


class BlobStore:
    """The blobs below `root`. A context manager: it belongs to one process at a time.

    `find` and `partial_size` only look, and may be asked outside the context too.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def __enter__(self) -> BlobStore:
        """Make the folders and take the lock. Raises TargetError."""
        try:
            for name in ("blobs/sha256", "known", "partial"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            self._lock = open(self.root / "lock", "w")
        except OSError as error:
            raise TargetError(f"cannot use the store {self.root}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise TargetError(
                f"another bundler uses the store {self.root}: wait for it, or name another "
                "folder with --store"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def find(self, identity: str) -> Blob | None:
        """The blob that content of this upstream identity is, if it is here whole."""
        try:
            digest, size = (self.root / "known" / _key(identity)).read_text("ascii").split()
            blob = Blob(Digest.parse(digest), int(size))
        except (OSError, ValueError):
            return None
        return blob if self.has(blob) else None

    def has(self, blob: Blob) -> bool:
        """Whether `blob` is here whole."""
        try:
            return self.path(blob).stat().st_size == blob.size
        except OSError:
            return False

    def open(self, blob: Blob) -> BinaryIO:
        """The content of a whole blob; the caller closes it."""
        return open(self.path(blob), "rb")

    def open_at(self, blob: Blob, offset: int) -> BinaryIO:
        """The same from byte `offset` on."""
        content = self.open(blob)
        content.seek(offset)
        return content

    def partial(self, identity: str) -> Path:
        """Where the bytes of an unfinished download are, or go."""
        return self.root / "partial" / _key(identity)

    def partial_size(self, identity: str) -> int:
        """Bytes of an unfinished download that are here already."""
        try:
            return self.partial(identity).stat().st_size
        except OSError:
            return 0

    def admit(self, identity: str, blob: Blob) -> None:
        """Take in the partial file of `identity`, which the caller has verified to be `blob`."""
        partial = self.partial(identity)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(partial, 0o444)
        os.replace(partial, self.path(blob))
        known = self.root / "known" / _key(identity)
        draft = known.with_suffix(".draft")
        draft.write_text(f"{blob.digest} {blob.size}", "ascii")
        os.replace(draft, known)

    def take(self, path: Path) -> Blob:
        """Take in a file that was made here, which is gone from `path` afterwards."""
        with open(path, "rb") as file:
            blob = Blob(digest_of(file, lambda _: None), os.fstat(file.fileno()).st_size)
            os.fsync(file.fileno())
        os.chmod(path, 0o444)
        os.replace(path, self.path(blob))
        return blob

    def discard(self, blob: Blob) -> None:
        """Drop a blob that turned out to be damaged, so that it is fetched anew."""
        self.path(blob).unlink(missing_ok=True)

    def path(self, blob: Blob) -> Path:
        """Where a whole blob stands."""
        return self.root / "blobs" / "sha256" / blob.digest.hex


def _key(identity: str) -> str:
    return Digest.of(identity.encode()).hex
