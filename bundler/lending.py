"""Large files of this machine that are read once: compared, or named, while they are written.

The store gives them out from where they are. What is known by its digest is compared with that as
any other blob is. What is not, such as weights that were trained here, gets a stand-in for its
digest, under which it is in the manifest until `archive_writer` has found the right one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from bundler.copies import Copy
from bundler.digest import Blob, Digest
from bundler.download import found
from bundler.members import LARGE
from bundler.origin import Key
from bundler.remote import ModelFile, RemoteFile
from bundler.store import BlobStore

_BEGINNING = 64 << 10
"""Bytes by which files of one size are told apart: headers of tensors differ, as a rule."""


@dataclass(frozen=True, slots=True)
class _Loan:
    item: ModelFile
    copy: Copy
    blob: Blob


class Lending:
    """What `store` gives out without having read it."""

    def __init__(self, store: BlobStore, *, named: bool, unnamed: bool) -> None:
        """Whether files with a digest, and without one, may be read so late."""
        self._store = store
        self._named = named
        self._unnamed = unnamed
        self._loans: dict[Key, _Loan] = {}

    def lend(self, wanted: Sequence[ModelFile]) -> dict[Key, Blob]:
        """Blobs of what is large, here, and not in the store, by key; some are stand-ins."""
        for item in wanted:
            file = item.file
            if (blob := self._said_to_be(file)) and found(file, self._store) is None:
                copy = next((copy for copy in file.places_here if copy.size == blob.size), None)
                if copy is not None:
                    self._store.lend(copy, blob)
                    self._loans[file.key] = _Loan(item, copy, blob)
        return {key: loan.blob for key, loan in self._loans.items()}

    def _said_to_be(self, file: RemoteFile) -> Blob | None:
        if file.size is None or file.size < LARGE:
            return None
        if file.digest is not None:
            return Blob(file.digest, file.size) if self._named else None
        if not self._unnamed or not file.is_here or file.git_sha1 or file.sha256_prefix:
            return None
        return Blob(Digest.of(file.origin.identity.encode()), file.size)

    @property
    def stand_ins(self) -> frozenset[Digest]:
        """What is in place of digests that nobody knows yet."""
        return frozenset(loan.blob.digest for loan in self._loans.values() if _lacks_name(loan))

    def recall_alike(self, blobs: Iterable[Blob]) -> list[ModelFile]:
        """End the loans of what may be equal to another of `blobs`: to be read before, after all.

        Each content is in a bundle once, so its name must be known before.
        """
        if not self.stand_ins:
            return []
        large = {blob for blob in blobs if blob.size >= LARGE}
        sizes = Counter(blob.size for blob in large)
        beginnings: dict[Blob, tuple[int, bytes]] = {}
        for blob in large:
            if sizes[blob.size] > 1:
                with self._store.open(blob) as content:
                    beginnings[blob] = (blob.size, content.read(_BEGINNING))
        count = Counter(beginnings.values())
        return self._recall(
            key
            for key, loan in self._loans.items()
            if _lacks_name(loan) and loan.blob in beginnings and count[beginnings[loan.blob]] > 1
        )

    def recall_unnamed(self) -> dict[Digest, ModelFile]:
        """End the loans of everything that has no name: what is to be read, by its stand-ins."""
        unnamed = {key: loan for key, loan in self._loans.items() if _lacks_name(loan)}
        self._recall(unnamed)
        return {loan.blob.digest: loan.item for loan in unnamed.values()}

    def end(self) -> list[ModelFile]:
        """End all loans: nothing will be written, or something was not what it should be."""
        return self._recall(self._loans)

    def _recall(self, keys: Iterable[Key]) -> list[ModelFile]:
        ended = [self._loans.pop(key) for key in [*keys]]
        for loan in ended:
            self._store.recall(loan.blob)
        return [loan.item for loan in ended]

    def settle(self, names: Mapping[Digest, Digest]) -> None:
        """Have the store keep what was lent, and found to be right: it need not be lent again.

        `names`: the digests in place of stand-ins.
        """
        for loan in self._loans.values():
            identity = loan.item.file.origin.identity
            digest = names.get(loan.blob.digest, loan.blob.digest)
            with suppress(OSError):  # The bundle is there already, which was the aim.
                self._store.adopt(identity, loan.copy, Blob(digest, loan.blob.size))


def _lacks_name(loan: _Loan) -> bool:
    return loan.item.file.digest is None
