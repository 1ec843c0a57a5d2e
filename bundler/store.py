"""The folder of blobs that packing reads from: whole ones under their digests, partial ones beside.

    blobs/sha256/<64 hex>    whole and verified, read-only
    known/<64 hex>           what content an upstream identity turned out to be: `<digest> <size>`
    partial/<64 hex>         the bytes of something under way, found again by its identity
    lock                     held by the one process that uses the store

Of very many small files of this machine it keeps nothing: it lends them, where they are, to the
process that has read them once. So it lends large ones, before it shares them: see `lending`.

Others may not look in: it may hold private models. A folder that was there keeps its mode.
A blob appears under its digest only by a rename of a whole, verified file. It is not synced: who
reads a blob compares it again, so that what a power cut took is seen, and fetched anew.
"""

from __future__ import annotations

import os
import re
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bundler.content import blob_of, holds
from bundler.copies import Copy
from bundler.digest import Blob, Digest, VerifiedReader
from bundler.errors import TargetError, amount
from bundler.lock import take_lock
from bundler.partial import Partial
from bundler.sharing import clone, hard_link

WORK = "prepared-"
"""How folders begin that are needed while packing."""
_OWN = re.compile(r"[0-9a-f]{64}(\.draft)?")
"""How everything that is kept is called."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the store in `folder` holds: blobs and unfinished downloads; sizes in bytes on disk."""

    folder: Path
    blobs: int = 0
    size: int = 0
    unfinished: int = 0
    unfinished_size: int = 0

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for programs."""
        return {**asdict(self), "folder": str(self.folder)}


class BlobStore:
    """The blobs below `root`. A context manager: it belongs to one process at a time.

    `find`, `has`, `partial` and `usage` only look, and may be asked outside the context too.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))
        self._blobs = self.root / "blobs" / "sha256"
        self._known = self.root / "known"
        self._lent: dict[Blob, Copy] = {}
        self._checksums: dict[Blob, array[int]] = {}

    def __enter__(self) -> BlobStore:
        """Make the folders and take the lock. Raises TargetError."""
        try:
            self.root.mkdir(0o700, parents=True, exist_ok=True)
            for name in ("blobs/sha256", "known", "partial"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            self._lock = open(self.root / "lock", "w")
        except OSError as error:
            raise TargetError(
                f"cannot use the store {self.root}: {error.strerror}; name a folder with --store"
            ) from None
        try:
            take_lock(self._lock.fileno())
        except BlockingIOError:
            self._lock.close()
            raise TargetError(
                f"another bundler uses the store {self.root}: wait for it, or name another "
                "folder with --store"
            ) from None
        for left in self.root.glob(f"{WORK}*"):
            shutil.rmtree(
                left, ignore_errors=True
            )  # Of a killed process: nobody else has the lock.
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def find(self, identity: str) -> Blob | None:
        """The blob that content of this upstream identity is, if it is here whole."""
        try:
            with open(os.path.join(self._known, _key(identity)), "rb") as file:
                digest, size = file.read().decode("ascii").split()
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
        """The content of a whole blob; the caller closes it.

        Of what is lent: RequestError if it is gone, and DamagedError, from here on, if it changed.
        """
        lent = self._lent.get(blob)
        return open(self._home(blob), "rb") if lent is None else lent.open(0)

    def open_at(self, blob: Blob, offset: int) -> BinaryIO:
        """The same from byte `offset` on."""
        content = self.open(blob)
        content.seek(offset)
        return content

    def partial(self, identity: str, size: int | None) -> Partial:
        """The unfinished download of a content of `size` bytes (None: unknown), begun or not."""
        return Partial(self.root / "partial" / _key(identity), size)

    def checksums(self, blob: Blob) -> array[int] | None:
        """Those that a blob had when this process verified it, if it did: `checksum.Checksums`."""
        return self._checksums.get(blob)

    def admit(
        self, identity: str, path: Path, blob: Blob, checksums: array[int] | None = None
    ) -> None:
        """Take in the file at `path`, which was verified to be `blob`."""
        self._note(identity, blob, checksums)
        os.chmod(path, 0o444)
        os.replace(path, self._home(blob))

    def adopt(
        self, identity: str, copy: Copy, blob: Blob, checksums: array[int] | None = None
    ) -> None:
        """Take in a file that is elsewhere on this machine, and was verified to be `blob`.

        It is left as it is. A small one is copied, a large one cloned or else hard-linked; where
        neither is possible, this process reads it where it is. Should it be changed later, whoever
        reads the blob sees that. Raises DamagedError if it was changed meanwhile.
        """
        self._note(identity, blob, checksums)
        self.recall(blob)
        home = self._home(blob)
        draft = self.root / "partial" / _key(identity)
        with open(copy.path, "rb") as source, open(draft, "wb") as target:
            taken = copy.is_small
            if taken:
                target.write(VerifiedReader(source, blob, copy.path).read())
            else:
                taken = clone(source, target)
        if taken:
            os.chmod(draft, 0o444)
            os.replace(draft, home)
        else:
            draft.unlink()
            home.unlink(missing_ok=True)
            if not hard_link(copy.place, home):
                self.lend(copy, blob)

    def lend(self, copy: Copy, blob: Blob) -> None:
        """Give out a file of this machine, where it is, as `blob`, as long as this process lasts.

        Whether it is that, or still that, whoever reads the blob sees, as with `adopt`.
        """
        self._lent[blob] = copy

    def recall(self, blob: Blob) -> None:
        """End what `lend` began."""
        self._lent.pop(blob, None)

    def take(self, path: Path) -> Blob:
        """Take in a file that was made here, which is gone from `path` afterwards."""
        blob = blob_of(path)
        os.chmod(path, 0o444)
        os.replace(path, self._home(blob))
        return blob

    def discard(self, blob: Blob) -> None:
        """Drop a blob that turned out to be damaged, so that it is fetched anew."""
        self._lent.pop(blob, None)
        self._checksums.pop(blob, None)
        self._home(blob).unlink(missing_ok=True)

    def discard_damaged(self, blobs: Iterable[Blob], count: Callable[[int], None]) -> bool:
        """Drop all of `blobs` that are damaged, and tell whether there were some.

        `count` gets the bytes read. Raises OSError.
        """
        damaged = [b for b in blobs if self.has(b) and not holds(self.path(b), b, count)]
        for blob in damaged:
            self.discard(blob)
        return bool(damaged)

    def path(self, blob: Blob) -> Path:
        """Where a whole blob stands."""
        lent = self._lent.get(blob)
        return self._home(blob) if lent is None else Path(lent.path)

    def check_space(self, size: int) -> None:
        """Raise TargetError if `size` more bytes do not fit."""
        free = shutil.disk_usage(self.root).free
        if size > free:
            raise TargetError(
                f"the store {self.root} has {amount(free)} free, and {amount(size)} are to be "
                "downloaded: free some space, perhaps with bundler store --clear, or name another "
                "folder with --store"
            )

    def usage(self) -> Usage:
        """How much is here."""
        blobs = [*_sizes(self.root / "blobs" / "sha256")]
        unfinished = [*_sizes(self.root / "partial")]
        return Usage(self.root, len(blobs), sum(blobs), len(unfinished), sum(unfinished))

    def clear(self) -> None:
        """Drop everything, and nothing that is not bundler's own. Raises OSError."""
        for name in ("known", "partial", "blobs/sha256"):
            for path in (self.root / name).iterdir():
                if _OWN.fullmatch(path.name):
                    path.unlink()

    def _home(self, blob: Blob) -> Path:
        return self._blobs / blob.digest.hex

    def _note(self, identity: str, blob: Blob, checksums: array[int] | None) -> None:
        """Note what a blob is known as: before it is here, or it might never be found."""
        if checksums is not None:
            self._checksums[blob] = checksums
        known = os.path.join(self._known, _key(identity))
        with open(f"{known}.draft", "wb") as draft:
            draft.write(b"%b %d" % (str(blob.digest).encode(), blob.size))
        os.replace(draft.name, known)


def _sizes(folder: Path) -> Iterator[int]:
    """Bytes that each file of a folder takes on disk; none if there is no folder."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if _OWN.fullmatch(entry.name):
                yield entry.stat().st_blocks * 512


def _key(identity: str) -> str:
    return Digest.of(identity.encode()).hex
