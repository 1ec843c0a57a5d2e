"""Upstream files -> verified bytes in the store: in parts at once, resumed, retried, compared.

Bytes go to a partial file that outlives the process; the next run goes on after the last of them.
Only content of the promised size and digest becomes a blob.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import partial
from posixpath import basename
from typing import TypeVar
from urllib.parse import urlsplit

from bundler.answers import WrongSizeError
from bundler.digest import COPY_SIZE, Blob, Digest, Stream, git_hash
from bundler.errors import (
    BundlerError,
    DamagedError,
    Faults,
    RequestError,
    TargetError,
    UnavailableError,
)
from bundler.patience import Cancelled, Patience, TransientError
from bundler.progress import Meter, Progress
from bundler.remote import RemoteFile
from bundler.store import BlobStore
from bundler.web import NoPartsError, Web, opener
from bundler.whole_file import told

PARALLEL = 8
"""Requests and downloads under way at once."""
SMALL = 1 << 20
"""Bytes; files up to this size may be read to learn what a model consists of."""

T = TypeVar("T")


def file_at(url: str, web: Web, known_by: str = "") -> tuple[RemoteFile, str]:
    """The file at `url`, called as its path ends, and its media type. Raises as `web` does.

    `known_by`: something of the content's digest; without it, all of it must be of one time.
    """
    heading = web.heading((url,))
    mark = "" if known_by else heading.mark
    open_, elsewhere = opener(web, (url,), mark=mark, size=heading.size)
    file = RemoteFile(
        path=basename(urlsplit(url).path),
        open=open_,
        identity=f"{url} {known_by or mark} {heading.size}",
        size=heading.size,
        resumes=bool(known_by or mark),
        part=open_ if known_by or mark else None,
        elsewhere=elsewhere,
    )
    return file, heading.media_type


def found(file: RemoteFile, store: BlobStore) -> Blob | None:
    """The blob that `file` is, if `store` has it whole and as upstream describes it."""
    if file.digest is not None and file.size is not None:
        promised = Blob(file.digest, file.size)
        return promised if store.has(promised) else None
    # Without any mark nothing tells whether the content is that of another time: fetched anew.
    blob = store.find(file.identity) if file.resumes else None
    if (
        blob
        and file.size in (None, blob.size)
        and file.digest in (None, blob.digest)
        and blob.digest.hex.startswith(file.sha256_prefix)
    ):
        return blob
    return None


def fetch_all(
    wanted: Sequence[tuple[str, RemoteFile]],
    store: BlobStore,
    progress: Progress,
    patience: Patience,
) -> dict[str, Blob]:
    """Bring files, each with a name for messages, into `store`: their blobs, by identity.

    What the store has is not asked for, and of the rest only what is missing. All is tried before
    a fault is told, and what has arrived is kept. Raises Faults: UnavailableError for what cannot
    be had after several tries, DamagedError for what arrives otherwise than promised, twice,
    TargetError if the store cannot be written.
    """
    blobs = {file.identity: blob for _, file in wanted if (blob := found(file, store))}
    faults: dict[str, BundlerError] = {}
    stop = threading.Event()
    pool = ThreadPoolExecutor(PARALLEL, "download")
    try:
        missing = [(what, file) for what, file in wanted if file.identity not in blobs]
        copied = [(what, file) for what, file in missing if file.copies]
        with progress.start("reading", sum(file.size or 0 for _, file in copied)) as meter:
            adoptions = [_Adoption(w, f, store, meter, stop, progress.say) for w, f in copied]
            list(pool.map(_Adoption.take, adoptions))
            _settle(adoptions, blobs, faults)
        missing = [(w, f) for w, f in missing if f.identity not in {**blobs, **faults}]
        total = sum(file.size or 0 for _, file in missing)
        left = sum(_unfetched_size(file, store) for _, file in missing)
        store.check_space(left)
        with progress.start("downloading", total, total - left) as meter:
            for _ in range(2):  # What arrived damaged is fetched anew, once.
                downloads = [_Download(w, f, store, meter, patience, stop) for w, f in missing]
                parts = [(download, part) for download in downloads for part in download.parts()]
                list(pool.map(lambda item: item[0].fetch(item[1]), parts))
                _settle(downloads, blobs, faults)
                missing = [(d.what, d.file) for d in downloads if isinstance(d.fault, DamagedError)]
                if stop.is_set():
                    break
    finally:
        # Not waited for: a thread may hang in a read from a network that does not answer.
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
    if faults:
        came = all(isinstance(fault, RequestError) for fault in faults.values())
        note = "" if came else _kept(wanted, blobs, store)
        raise Faults(sorted(faults.values(), key=str), note)
    return blobs


def missing_size(file: RemoteFile, store: BlobStore) -> int:
    """Bytes of `file` that are not on this machine even in part."""
    return 0 if file.copies else _unfetched_size(file, store)


def _unfetched_size(file: RemoteFile, store: BlobStore) -> int:
    return max(0, (file.size or 0) - store.partial(file.identity, file.size).here)


def small_content(
    file: RemoteFile, what: str, patience: Patience, store: BlobStore | None = None
) -> bytes:
    """All of a file of at most SMALL bytes, from `store` if it is there.

    Raises UnavailableError, or DamagedError if it arrives otherwise than promised, twice.
    """
    blob = found(file, store) if store else None
    if store and blob:
        with store.open(blob) as stored:
            return stored.read()

    def attempt(open_: Callable[[int], Stream]) -> bytes:
        content = b""
        with closing(open_(0)) as body:
            while len(content) <= SMALL and (data := body.read(COPY_SIZE)):
                content += data
        sha1 = git_hash(len(content))
        sha1.update(content)
        _compare(file, what, len(content), Digest.of(content), sha1.hexdigest())
        return content

    for copy in file.copies:
        with suppress(DamagedError, RequestError):
            return attempt(copy.open)
    fetch = partial(_or_elsewhere, file, partial(attempt, file.open))
    with _named(what):
        try:
            return patience.insist(fetch)
        except DamagedError:
            return patience.insist(fetch)


class _MismatchError(DamagedError):
    """Content is not what upstream promised."""


class _Arrival:
    """One file on its way into the store: in the end it has a `blob` or a `fault`.

    It has neither if `stop` ended it, or nothing came of it.
    """

    def __init__(
        self, what: str, file: RemoteFile, store: BlobStore, meter: Meter, stop: threading.Event
    ) -> None:
        self.what = what
        self.file = file
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
    ) -> Blob:
        """The blob that a stream, or its first `limit` bytes are.

        Raises DamagedError if upstream promised another.
        """
        sha256 = hashlib.sha256()
        sha1 = git_hash(self.file.size or 0)
        size = 0
        while data := content.read(COPY_SIZE if limit is None else min(COPY_SIZE, limit - size)):
            if self._stop.is_set():
                raise Cancelled
            sha256.update(data)
            if self.file.git_sha1 is not None:
                sha1.update(data)
            size += len(data)
            count(len(data))
        digest = Digest(sha256.hexdigest())
        _compare(self.file, self.what, size, digest, sha1.hexdigest())
        return Blob(digest, size)


class _Adoption(_Arrival):
    """Looks whether what is on this machine is the file; if it is not, nothing comes of it."""

    def __init__(
        self,
        what: str,
        file: RemoteFile,
        store: BlobStore,
        meter: Meter,
        stop: threading.Event,
        say: Callable[[str], None],
    ) -> None:
        super().__init__(what, file, store, meter, stop)
        self._say = say

    def take(self) -> None:
        """Take in the first copy that is what upstream says."""
        with self._faults_kept():
            for copy in self.file.copies:
                try:
                    with closing(copy.open(0)) as content:
                        blob = self._blob_of(content, self._meter.add)
                except (DamagedError, RequestError) as error:
                    file = self.file
                    if (
                        isinstance(error, _MismatchError)
                        and file.is_here
                        and file.is_known_by_content
                    ):
                        raise DamagedError(
                            f"{self.what} is damaged in {copy.path}: delete it, and have it "
                            "downloaded again"
                        ) from None
                    if self.file.is_here:
                        raise
                    self._say(f"{copy.path} is not what upstream has, and is downloaded")
                else:
                    self._store.adopt(self.file.identity, copy, blob)
                    self.blob = blob
                    return


class _Download(_Arrival):
    """Fetches a file, by several threads at once if it has several parts."""

    def __init__(
        self,
        what: str,
        file: RemoteFile,
        store: BlobStore,
        meter: Meter,
        patience: Patience,
        stop: threading.Event,
    ) -> None:
        super().__init__(what, file, store, meter, stop)
        self._patience = patience
        self._partial = store.partial(file.identity, file.size)
        self._lock = threading.Lock()
        self._threads = 0
        self._streamed = self._finished = False
        self._splits = self._partial.count > 1 and file.part is not None and file.resumes

    def parts(self) -> list[int]:
        """What to call `fetch` with, once each."""
        return (self._partial.missing if self._splits else []) or [0]

    def fetch(self, part: int) -> None:
        """Bring one part; with the last of them the file is compared and becomes a blob."""
        with self._faults_kept(), _named(self.what), self._opened() as wanted:
            if wanted:
                self._bring(part)

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
        try:
            if self.file.part is None or not self._splits:
                raise NoPartsError("it comes as a whole")
            read = partial(self._read_part, part, self.file.part)
            self._insist(read, lambda: self._partial.span(part)[0])
        except NoPartsError:
            if self._is_first("_streamed"):
                self._insist(self._read_all, lambda: self._partial.here)
        is_whole = self._streamed if self.file.size is None else not self._partial.missing
        if is_whole and self._is_first("_finished"):
            self._finish()

    def _insist(self, attempt: Callable[[], None], arrived: Callable[[], int]) -> None:
        with_others = partial(_or_elsewhere, self.file, attempt)
        try:
            self._patience.insist(with_others, arrived, self._stop)
        except WrongSizeError:
            raise  # Of the bytes that are here nothing is said.
        except DamagedError:
            self._drop()
            raise

    def _is_first(self, flag: str) -> bool:
        """Whether no other thread was here before."""
        with self._lock:
            before = getattr(self, flag)
            setattr(self, flag, True)
            return not before

    def _read_part(self, part: int, open_part: Callable[[int, int], Stream]) -> None:
        start, stop = self._partial.span(part)
        assert stop is not None
        if start < stop:
            with closing(open_part(start, stop)) as body:
                start = self._receive(body, start, stop)
            if start < stop:
                raise TransientError(f"the answer ended at byte {start:,} of {stop:,}")

    def _read_all(self) -> None:
        if self._partial.here and (self.file.size is None or not self.file.resumes):
            # Nothing tells whether the bytes here are some of it, or all, or of something else.
            self._drop()
        missing = self._partial.missing
        if missing:
            start, _ = self._partial.span(missing[0])
            size = self.file.size
            with closing(self.file.open(start)) as body:
                start = self._receive(body, start, size)
            if size is not None and start < size:
                raise TransientError(f"the answer ended at byte {start:,} of {size:,}")
            if size is not None and start > size:
                raise _MismatchError(
                    f"{self.what} arrives with more than its {size:,} bytes: something on the way "
                    "alters it; try another network or mirror"
                )

    def _receive(self, body: Stream, start: int, stop: int | None) -> int:
        """Write what `body` gives from byte `start` of the content on; up to where it got.

        It is read to its end, so that the connection can be used again, but not far beyond `stop`.
        """
        while (stop is None or start <= stop) and (data := body.read(COPY_SIZE)):
            if self._stop.is_set():
                raise Cancelled
            wanted = data if stop is None else data[: stop - start]
            self._meter.add(self._partial.write(start, wanted))
            start += len(data)
        return start

    def _finish(self) -> None:
        try:
            with open(self._partial.path, "rb", buffering=0) as content:
                blob = self._blob_of(content, lambda _: None, self._partial.here)
        except _MismatchError:
            self._drop()
            self.file.elsewhere()
            raise
        has_digest = self.file.digest or self.file.git_sha1 or self.file.sha256_prefix
        self._partial.finish(sync=not has_digest)
        self._store.admit(self.file.identity, self._partial.path, blob)
        self.blob = blob

    def _drop(self) -> None:
        self._meter.add(-self._partial.here)
        self._partial.clear()


def _or_elsewhere(file: RemoteFile, attempt: Callable[[], T]) -> T:
    """What `attempt` gives; if it fails, the next one begins at another place."""
    try:
        return attempt()
    except (TransientError, DamagedError):
        file.elsewhere()
        raise


@contextmanager
def _named(what: str) -> Iterator[None]:
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


def _settle(
    arrivals: Sequence[_Arrival], blobs: dict[str, Blob], faults: dict[str, BundlerError]
) -> None:
    """Sort out what has come of `arrivals`, by identity; later news count."""
    for arrival in arrivals:
        identity = arrival.file.identity
        if arrival.blob is not None:
            blobs[identity] = arrival.blob
            faults.pop(identity, None)
        elif arrival.fault is not None:
            faults[identity] = arrival.fault


def _kept(
    wanted: Sequence[tuple[str, RemoteFile]], blobs: dict[str, Blob], store: BlobStore
) -> str:
    """What there is to say when not all could be had."""
    here = sum(file.identity in blobs for _, file in wanted)
    if not here or all(file.is_here for _, file in wanted):
        return ""
    return f"{here:,} of {len(wanted):,} files are in {store.root}: what came is not fetched again"


def _compare(file: RemoteFile, what: str, size: int, digest: Digest, git_sha1: str) -> None:
    """Raise DamagedError if `file` was promised otherwise."""
    if (
        file.size not in (None, size)
        or file.digest not in (None, digest)
        or file.git_sha1 not in (None, git_sha1)
        or not digest.hex.startswith(file.sha256_prefix)
    ):
        promised = file.digest.hex if file.digest else file.sha256_prefix
        sums = f" (sha256 {digest.hex[:12]}…, not {promised[:12]}…)" if promised else ""
        raise _MismatchError(
            f"{what} arrived otherwise than upstream says it is, twice{sums}: something on the way "
            "alters it; try another network or mirror"
        )
