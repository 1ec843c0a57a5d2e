"""One file on its way into the store: taken from this machine, or downloaded in parts and resumed.

Bytes go to a partial file that outlives the process; the next run goes on after the last of them.
Only content of the promised size and digest becomes a blob.
"""

from __future__ import annotations

import hashlib
import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import TypeVar

from bundler.answers import WrongSizeError
from bundler.checksum import Checksums
from bundler.copies import Copy
from bundler.digest import COPY_SIZE, Blob, Digest, Stream, git_hash, git_name
from bundler.errors import BundlerError, DamagedError, RequestError, TargetError, UnavailableError
from bundler.members import LARGE
from bundler.partial import Partial
from bundler.patience import Cancelled, Patience, TransientError
from bundler.permission import told
from bundler.progress import Meter
from bundler.remote import ModelFile, RemoteFile
from bundler.store import BlobStore
from bundler.web import NoPartsError

T = TypeVar("T")


class _MismatchError(DamagedError):
    """Content is not what upstream promised."""


class Arrival:
    """One file on its way into the store: in the end it has a `blob` or a `fault`.

    It has neither if `stop` ended it, or nothing came of it.
    """

    def __init__(
        self, item: ModelFile, store: BlobStore, meter: Meter, stop: threading.Event
    ) -> None:
        self.item = item
        self.file = item.file
        self.blob: Blob | None = None
        self.fault: BundlerError | None = None
        self._store = store
        self._meter = meter
        self._stop = stop

    @contextmanager
    def _faults_kept(self) -> Iterator[None]:
        """What goes wrong is kept for the end; what would go wrong for all stops all."""
        try:
            with told(self._store.root, "--store"):
                yield
        except TargetError as error:
            self._stop.set()  # A full disk is full for all.
            self.fault = error
        except BundlerError as error:
            self.fault = self.fault or error
        except Cancelled:
            pass

    def _blob_of(
        self, content: Stream, count: Callable[[int], None], limit: int | None = None
    ) -> tuple[Blob, array[int] | None]:
        """The blob that a stream, or its first `limit` bytes are; if large, with its checksums.

        Raises DamagedError if upstream promised another.
        """
        sha256 = hashlib.sha256()
        checksums = Checksums() if self.file.size is None or self.file.size >= LARGE else None
        sha1 = None if self.file.git_sha1 is None else git_hash(self.file.size or 0)
        size = 0
        while data := content.read(COPY_SIZE if limit is None else min(COPY_SIZE, limit - size)):
            if self._stop.is_set():
                raise Cancelled
            sha256.update(data)
            if checksums is not None:
                checksums.update(data)
            if sha1 is not None:
                sha1.update(data)
            size += len(data)
            count(len(data))
        blob = Blob(Digest(sha256.hexdigest()), size)
        _compare(self.item, blob, None if sha1 is None else sha1.hexdigest())
        return blob, None if checksums is None else checksums.finish()


class Adoption(Arrival):
    """Looks whether what is on this machine is the file; if it is not, nothing comes of it."""

    def __init__(
        self,
        item: ModelFile,
        store: BlobStore,
        meter: Meter,
        stop: threading.Event,
        say: Callable[[str], None],
        lends: bool,
    ) -> None:
        """`lends`: the store is to keep nothing of a small file."""
        super().__init__(item, store, meter, stop)
        self._say = say
        self._lends = lends

    def take(self, count: Callable[[int], None]) -> None:
        """Take in the first copy that is what upstream says; `count` gets the bytes read."""
        with self._faults_kept():
            for copy in self.file.places_here:
                try:
                    blob, checksums = self._blob_in(copy, count)
                except (DamagedError, RequestError) as error:
                    if self.file.is_here:
                        raise self._fault(copy, error) from None
                    self._say(f"{copy.place} is not what upstream has, and is downloaded")
                else:
                    if self._lends and copy.is_small:
                        self._store.lend(copy, blob)
                    else:
                        self._store.adopt(self.file.origin.identity, copy, blob, checksums)
                    self.blob = blob
                    return

    def _blob_in(self, copy: Copy, count: Callable[[int], None]) -> tuple[Blob, array[int] | None]:
        """As `_blob_of` for a file of this machine; a small one is read at once."""
        if not copy.is_small:
            with closing(copy.open(0)) as stream:
                return self._blob_of(stream, count)
        if self._stop.is_set():
            raise Cancelled
        content = copy.read()
        count(len(content))
        # Of very many, the number that the copy has already need not be made again.
        return Blob(compared(content, self.item), copy.size), None

    def _fault(self, copy: Copy, error: BundlerError) -> BundlerError:
        if not (isinstance(error, _MismatchError) and copy.known_as):
            return error
        return DamagedError(
            f"{self.item.what} is damaged in {copy.place}: delete it, and have it downloaded again"
        )


class Download(Arrival):
    """Fetches a file, by several threads at once if it has several parts."""

    def __init__(
        self,
        item: ModelFile,
        store: BlobStore,
        meter: Meter,
        stop: threading.Event,
        patience: Patience,
        begun: Partial,
    ) -> None:
        super().__init__(item, store, meter, stop)
        self._patience = patience
        self._partial = begun
        self._open_part = item.file.origin.part if begun.count > 1 else None
        self._lock = threading.Lock()
        self._threads = 0
        # Each is for the first thread that comes, and is never given back.
        self._streaming, self._finishing = threading.Lock(), threading.Lock()

    def parts(self) -> list[int]:
        """What to call `fetch` with, once each."""
        return (self._partial.missing if self._open_part else []) or [0]

    def fetch(self, part: int) -> None:
        """Bring one part; with the last of them the file is compared and becomes a blob."""
        with self._faults_kept(), named(self.item.what), self._opened() as wanted:
            if wanted:
                self._bring(part)
                is_whole = self.file.size is None or not self._partial.missing
                if is_whole and self._finishing.acquire(blocking=False):
                    self._finish()

    @contextmanager
    def _opened(self) -> Iterator[bool]:
        """The partial file is open as long as some thread needs it; none does in the end."""
        with self._lock:
            wanted = not (self.blob or self.fault or self._stop.is_set())
            if wanted and self._threads == 0:
                self._partial.__enter__()
            self._threads += wanted
        try:
            yield wanted
        finally:
            with self._lock:
                self._threads -= wanted
                if wanted and self._threads == 0:
                    self._partial.__exit__()

    def _bring(self, part: int) -> None:
        """Bring a part if the server gives parts, or else, in one thread alone, all."""
        if self._open_part is not None:
            read_part = partial(self._read_part, part, self._open_part)
            with suppress(NoPartsError):
                self._insist(read_part, lambda: self._partial.span(part)[0])
                return
        if self._streaming.acquire(blocking=False):
            self._insist(self._read_all, lambda: self._partial.here)

    def _insist(self, attempt: Callable[[], None], arrived: Callable[[], int]) -> None:
        with_others = partial(or_elsewhere, self.file, attempt)
        try:
            self._patience.insist(with_others, arrived, self._stop)
        except WrongSizeError:
            raise  # Of the bytes that are here nothing is said.
        except DamagedError:
            self._drop()
            raise

    def _read_part(self, part: int, open_part: Callable[[int, int], Stream]) -> None:
        start, stop = self._partial.span(part)
        assert stop is not None
        if start < stop:
            self._receive(open_part(start, stop), start, stop)

    def _read_all(self) -> None:
        size = self.file.size
        if self._partial.here and (size is None or not self.file.origin.resumes):
            # Nothing tells whether the bytes here are some of it, or all, or of something else.
            self._drop()
        missing = self._partial.missing
        if missing:
            start, _ = self._partial.span(missing[0])
            end = self._receive(self.file.origin.open(start), start, size)
            if size is not None and end > size:
                raise _MismatchError(
                    f"{self.item.what} arrives with more than its {size:,} bytes: something on the "
                    "way alters it; try another network or mirror"
                )

    def _receive(self, body: Stream, start: int, stop: int | None) -> int:
        """Write what `body` gives from byte `start` of the content on; up to where it got.

        It is read to its end, so that the connection can be used again, but not far beyond `stop`.
        Raises TransientError if it ends before that.
        """
        with closing(body):
            while (stop is None or start <= stop) and (data := body.read(COPY_SIZE)):
                if self._stop.is_set():
                    raise Cancelled
                wanted = data if stop is None else data[: stop - start]
                self._meter.add(self._partial.write(start, wanted))
                start += len(data)
        if stop is not None and start < stop:
            raise TransientError(f"the answer ended at byte {start:,} of {stop:,}")
        return start

    def _finish(self) -> None:
        try:
            with open(self._partial.path, "rb", buffering=0) as content:
                blob, checksums = self._blob_of(content, lambda _: None, self._partial.here)
        except _MismatchError:
            self._drop()
            self.file.origin.elsewhere()
            raise
        has_digest = self.file.digest or self.file.git_sha1 or self.file.sha256_prefix
        self._partial.finish(sync=not has_digest)
        self._store.admit(self.file.origin.identity, self._partial.path, blob, checksums)
        self.blob = blob

    def _drop(self) -> None:
        self._meter.add(-self._partial.here)
        self._partial.clear()


def or_elsewhere(file: RemoteFile, attempt: Callable[[], T]) -> T:
    """What `attempt` gives; if it fails, the next one begins at another place."""
    try:
        return attempt()
    except (TransientError, DamagedError):
        file.origin.elsewhere()
        raise


@contextmanager
def named(what: str) -> Iterator[None]:
    """Say in an error which file it is about."""
    try:
        yield
    except TransientError as error:
        tries = f"{error.tries} tries" if error.tries > 1 else "1 try"
        raise UnavailableError(
            f"{what}: {error} (after {tries}; run the same command again to go on)"
        ) from None
    except UnavailableError as error:
        raise UnavailableError(f"{what}: {error}") from None
    except WrongSizeError as error:
        raise WrongSizeError(f"{what}: {error}") from None


def compared(content: bytes, item: ModelFile) -> Digest:
    """The digest of all of `content`. Raises DamagedError if `item` was promised otherwise."""
    blob = Blob.of(content)
    _compare(item, blob, None if item.file.git_sha1 is None else git_name(content))
    return blob.digest


def _compare(item: ModelFile, blob: Blob, git_sha1: str | None) -> None:
    file = item.file
    if (
        file.size not in (None, blob.size)
        or file.digest not in (None, blob.digest)
        or file.git_sha1 != git_sha1
        or not blob.digest.hex.startswith(file.sha256_prefix)
    ):
        promised = file.digest.hex if file.digest else file.sha256_prefix
        found = blob.digest.hex
        sums = f" (sha256 {found[:12]}…, not {promised[:12]}…)" if promised else ""
        raise _MismatchError(
            f"{item.what} arrived otherwise than upstream says it is, twice{sums}: something on "
            "the way alters it; try another network or mirror"
        )
