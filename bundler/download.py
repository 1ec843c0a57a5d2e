"""One upstream file -> verified bytes in the store: resumed, retried, compared.

Bytes go to a partial file that outlives the process; the next run goes on after the last of them.
Only content of the promised size and digest becomes a blob.
"""

from __future__ import annotations

import hashlib
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial
from posixpath import basename
from typing import TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2

from bundler.digest import COPY_SIZE, Blob, Digest, Stream, git_hash
from bundler.errors import DamagedError, RequestError, UnavailableError, shown
from bundler.progress import Meter
from bundler.remote import RemoteFile
from bundler.store import BlobStore

STALL_SECONDS = 30.0
"""A connection on which nothing arrives for so long counts as broken."""
SMALL = 1 << 20
"""Bytes; files up to this size may be read to learn what a model consists of."""
ATTEMPTS = 6
"""Tries without a single new byte before a file is given up."""
GREETINGS = 2
"""Tries to learn what a server has that does not answer at all: whoever plans is told soon."""
_LONGEST_WAIT = 30.0
_LONGEST_ASKED_WAIT = 300.0
"""Seconds; as long as this, a server's own word is obeyed."""

T = TypeVar("T")


class TransientError(UnavailableError):
    """Not to be had at the moment. `wait`: seconds after which the server wants another try."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class UnreachableError(TransientError):
    """No answer at all."""


class Cancelled(Exception):
    """The work was given up while a download was under way."""


Explain = Callable[[httpx2.Response], UnavailableError | None]
"""Puts a refusal in better words than those at hand; None where it has none."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """Whatever has the address `origin`, or one below it, is first looked for below `place`."""

    origin: str
    place: str

    @classmethod
    def parse(cls, text: str) -> Mirror:
        """Read `FROM=TO`. Raises RequestError."""
        match = re.fullmatch(r"(https?://[^/\s]+\S*?)/?=(https?://[^/\s]+\S*?)/?", text)
        if match is None:
            raise RequestError(
                f"the mirror {shown(text)} is not of the form FROM=TO, such as "
                "https://github.com=https://mirror.example.org/github"
            )
        return cls(*match.groups())

    def __call__(self, url: str) -> str | None:
        """The address of `url` on this mirror, if it is one for it."""
        rest = url.removeprefix(self.origin)
        return self.place + rest if rest != url and rest[:1] in ("", "/") else None


@dataclass(frozen=True, slots=True)
class Heading:
    """What a server says of a file: `size` in bytes, and `mark`, which changes with the content."""

    size: int | None
    mark: str
    media_type: str


class Web:
    """An HTTP client for content: says what went wrong in this project's errors."""

    def __init__(self, mirrors: Sequence[Mirror] = ()) -> None:
        self._mirrors = tuple(mirrors)
        self._client = httpx2.Client(
            # Identity: a compressed answer has neither length nor ranges.
            headers={"User-Agent": "bundler", "Accept-Encoding": "identity"},
            timeout=httpx2.Timeout(STALL_SECONDS),
            follow_redirects=True,
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def open(
        self,
        url: str,
        offset: int,
        headers: dict[str, str],
        explain: Explain = lambda _: None,
        mark: str = "",
    ) -> Stream:
        """The content at `url` from byte `offset` on; the caller closes it.

        Mirrors are asked first. A token in `headers` goes to the host of `url` only: not to where
        it redirects, not to a mirror. `explain` may put a refusal in better words. `mark`: what the
        bytes before `offset` came with, as in `heading`. Raises TransientError, UnavailableError,
        and DamagedError if the content is another now; reads too.
        """
        response = self._get(url, offset, headers, explain)
        try:
            if offset and mark and _mark(response) != mark:
                raise _changed(response)
            if offset and response.status_code == 206:
                _check_range(response, offset)
            body = _Body(response)
            if offset and response.status_code != 206:
                _skip(body, offset)  # A server that does not know ranges starts at the beginning.
            return body
        except BaseException:
            response.close()
            raise

    def heading(self, url: str, explain: Explain = lambda _: None) -> Heading:
        """What the server says of the file at `url`, of which nothing is read. Raises as `open`."""
        # A GET, though its body is not wanted: not every server answers a HEAD as it would this.
        with closing(patiently(lambda: self._get(url, 0, {}, explain))) as response:
            length = response.headers.get("Content-Length", "")
            return Heading(
                int(length) if length.isascii() and length.isdigit() else None,
                _mark(response),
                response.headers.get("Content-Type", "").partition(";")[0].strip().lower(),
            )

    def read(self, url: str, limit: int, explain: Explain = lambda _: None) -> bytes:
        """The document at `url`, of at most `limit` bytes. Raises as `open` does."""

        def whole() -> bytes:
            content = bytearray()
            with closing(self.open(url, 0, {}, explain)) as body:
                while data := body.read(COPY_SIZE):
                    content += data
                    if len(content) > limit:
                        raise UnavailableError(
                            f"{httpx2.URL(url).host} sends more than {limit:,} bytes where a short "
                            "answer belongs: check the network, or name a mirror with --mirror"
                        )
            return bytes(content)

        return patiently(whole)

    def refusal(
        self, url: str, headers: dict[str, str], explain: Explain
    ) -> UnavailableError | None:
        """Why a GET of `url` would be refused; None if it would not. Raises TransientError."""
        try:
            response = self._client.head(url, headers=headers, follow_redirects=False)
        except httpx2.HTTPError as error:
            host = httpx2.URL(url).host
            raise TransientError(f"{host} cannot be reached: {reason(error)}") from None
        return None if response.status_code < 400 else explain(response)

    def _get(
        self, url: str, offset: int, headers: dict[str, str], explain: Explain
    ) -> httpx2.Response:
        """A good answer, its body not read; from the first mirror that has one, else the origin."""
        mirrors = () if headers else self._mirrors
        refusal = None
        for place in filter(None, (mirror(url) for mirror in mirrors)):
            try:
                return self._ask(place, offset, headers, explain)
            except UnreachableError:
                continue
            except UnavailableError as error:
                refusal = error
        try:
            return self._ask(url, offset, headers, explain)
        except UnreachableError as error:
            # Where only mirrors are to be reached, theirs is the word that counts.
            raise refusal or error from None

    def _ask(
        self, url: str, offset: int, headers: dict[str, str], explain: Explain
    ) -> httpx2.Response:
        ranges = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            request = self._client.build_request("GET", url, headers=headers | ranges)
            response = self._client.send(request, stream=True)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            host = urlsplit(url).hostname
            raise UnreachableError(
                f"{host} cannot be reached ({reason(error)}): check the network, or name a mirror"
            ) from None
        try:
            self._check(response, explain)
        except BaseException:
            response.close()
            raise
        return response

    @staticmethod
    def _check(response: httpx2.Response, explain: Explain) -> None:
        status, host = response.status_code, response.url.host
        if status in (200, 206):
            return
        if status == 429 or status >= 500:
            raise TransientError(
                f"{host} answered {status} {response.reason_phrase}", asked_wait(response.headers)
            )
        if status == 416:
            raise _changed(response)
        raise explain(response) or UnavailableError(
            f"{host} answered {status} {response.reason_phrase} for {response.url.path}: "
            "check the name"
        )


def _mark(response: httpx2.Response) -> str:
    return response.headers.get("ETag", "") or response.headers.get("Last-Modified", "")


def _changed(response: httpx2.Response) -> DamagedError:
    return DamagedError(
        f"{response.url.host} has other content for {response.url.path} now than when it was "
        "begun: run the same command again"
    )


def _check_range(response: httpx2.Response, offset: int) -> None:
    if not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
        raise TransientError(
            f"{response.url.host} sent another part of the file than was asked for"
        )


class _Body:
    """The body of a response: bytes are given out as they arrive, so that none is lost."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._chunks: Iterator[bytes] = response.iter_raw()
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        try:
            while not self._rest:
                self._rest = next(self._chunks)
        except StopIteration:
            return b""
        except httpx2.HTTPError as error:
            host = self._response.url.host
            raise TransientError(f"{host} broke off: {reason(error)}") from None
        if size < 0:
            size = len(self._rest)
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def close(self) -> None:
        self._response.close()


def _skip(body: Stream, size: int) -> None:
    while size:
        data = body.read(min(size, COPY_SIZE))
        if not data:
            return
        size -= len(data)


def reason(error: Exception) -> str:
    """What went wrong, without the number that the system has for it."""
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__


def file_at(url: str, heading: Heading, web: Web) -> RemoteFile:
    """The file at `url`, of which `web` gave the heading; called by the last part of the path."""
    return RemoteFile(
        path=basename(urlsplit(url).path),
        open=partial(web.open, url, headers={}, mark=heading.mark),
        # Without a mark nothing tells whether the content is that of another time: fetched anew.
        identity=f"{url} {heading.mark or uuid4().hex} {heading.size}",
        size=heading.size,
        resumes=bool(heading.mark),
    )


def found(file: RemoteFile, store: BlobStore) -> Blob | None:
    """The blob that `file` is, if `store` has it whole and as upstream describes it."""
    if file.digest is not None and file.size is not None:
        promised = Blob(file.digest, file.size)
        return promised if store.has(promised) else None
    blob = store.find(file.identity)
    if (
        blob
        and file.size in (None, blob.size)
        and file.digest in (None, blob.digest)
        and blob.digest.hex.startswith(file.sha256_prefix)
    ):
        return blob
    return None


def fetch(
    file: RemoteFile, what: str, store: BlobStore, meter: Meter, stop: threading.Event
) -> Blob:
    """Bring `file`, which `store` does not have whole, into it; goes on from the bytes it has.

    `what` names it in messages. Setting `stop` ends the work with Cancelled at the next byte that
    arrives, and no later than a stall would. Raises UnavailableError when it cannot be had after
    several tries, DamagedError when it keeps arriving otherwise than promised; what is here already
    is kept in the first case.
    """

    def attempt() -> Blob:
        _append(file, store, meter, stop)
        blob = _verified(file, what, store)
        store.admit(file.identity, blob)
        return blob

    def drop() -> None:
        meter.add(-store.partial_size(file.identity))
        store.partial(file.identity).unlink(missing_ok=True)

    return _insisting(attempt, what, stop, lambda: store.partial_size(file.identity), drop)


def small_content(file: RemoteFile, what: str, store: BlobStore | None = None) -> bytes:
    """All of a file of at most SMALL bytes, from `store` if it is there. Raises as `fetch` does."""
    blob = found(file, store) if store else None
    if store and blob:
        with store.open(blob) as stored:
            return stored.read()

    def attempt() -> bytes:
        content = b""
        with closing(file.open(0)) as body:
            while len(content) <= SMALL and (data := body.read(COPY_SIZE)):
                content += data
        sha1 = git_hash(len(content))
        sha1.update(content)
        _compare(file, what, len(content), Digest.of(content), sha1.hexdigest())
        return content

    return _insisting(attempt, what, threading.Event(), lambda: 0, lambda: None)


def _insisting(
    attempt: Callable[[], T],
    what: str,
    stop: threading.Event,
    arrived: Callable[[], int],
    drop: Callable[[], None],
) -> T:
    """What `attempt` gives, tried again as long as that may help.

    `arrived`: bytes that are here, by which progress is told. `drop`: forget damaged ones.
    """
    failures, corruptions = 0, 0
    while True:
        before = arrived()
        try:
            return attempt()
        except TransientError as error:
            failures = 0 if arrived() > before else failures + 1
            if failures >= ATTEMPTS:
                raise UnavailableError(
                    f"{what}: {error} (after {ATTEMPTS} tries; run the same command again to go on)"
                ) from None
            if stop.wait(_wait(failures, error)):
                raise Cancelled from None
        except DamagedError:
            drop()
            corruptions += 1
            if corruptions > 1:
                raise
        except UnavailableError as error:
            raise UnavailableError(f"{what}: {error}") from None


def patiently(ask: Callable[[], T]) -> T:
    """What `ask` gives, asked again while the server is in trouble. Raises what `ask` does."""
    failures = 0
    while True:
        try:
            return ask()
        except TransientError as error:
            failures += 1
            if failures >= (GREETINGS if isinstance(error, UnreachableError) else ATTEMPTS):
                raise
            time.sleep(_wait(failures, error))


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds until a server wants to be asked again, if it says so.

    RFC 9110 has Retry-After, in seconds or as a date; the Hub says `t=` in RateLimit too.
    """
    said = headers.get("Retry-After", "")
    if said.isascii() and said.isdigit():
        return float(said)
    with suppress(ValueError, TypeError):
        then = parsedate_to_datetime(said)
        return max(0.0, (then - datetime.now(then.tzinfo)).total_seconds())
    match = re.search(r"(?:^|[;,\s])t=(\d{1,6})\b", headers.get("RateLimit", ""))
    return float(match[1]) if match else None


def _wait(failures: int, error: TransientError) -> float:
    """Seconds: as asked for, else none after progress, then doubling from half a second.

    Spread by chance, so that many do not come back at once.
    """
    if error.wait is not None:
        return min(error.wait, _LONGEST_ASKED_WAIT)
    if not failures:
        return 0.0
    return min(_LONGEST_WAIT, 2.0 ** (failures - 2)) * random.uniform(1, 1.5)


def _append(file: RemoteFile, store: BlobStore, meter: Meter, stop: threading.Event) -> None:
    """Read what the partial file lacks."""
    offset = store.partial_size(file.identity)
    if offset and (file.size is None or not file.resumes):
        # Nothing tells whether the bytes here are some of it, or all, or of something else.
        meter.add(-offset)
        store.partial(file.identity).unlink()
        offset = 0
    if file.size is not None and offset >= file.size > 0:
        return
    with (
        open(store.partial(file.identity), "ab") as partial,
        closing(file.open(offset)) as body,
    ):
        while data := body.read(COPY_SIZE):
            if stop.is_set():
                raise Cancelled
            partial.write(data)
            meter.add(len(data))
            offset += len(data)
            if file.size is not None and offset > file.size:
                return
    if file.size is not None and offset < file.size:
        raise TransientError(f"the answer ended after {offset:,} of {file.size:,} bytes")


def _verified(file: RemoteFile, what: str, store: BlobStore) -> Blob:
    """The blob that the partial file is. Raises DamagedError if upstream promised another."""
    partial = store.partial(file.identity)
    size = partial.stat().st_size
    sha256 = hashlib.sha256()
    sha1 = git_hash(size)
    with open(partial, "rb", buffering=0) as content:
        while data := content.read(COPY_SIZE):
            sha256.update(data)
            if file.git_sha1 is not None:
                sha1.update(data)
    digest = Digest(sha256.hexdigest())
    _compare(file, what, size, digest, sha1.hexdigest())
    return Blob(digest, size)


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
        raise DamagedError(
            f"{what} arrived otherwise than upstream says it is, twice{sums}: something on the way "
            "alters it; try another network or mirror"
        )
