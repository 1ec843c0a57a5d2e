"""One address -> an answer: through mirrors, proxies and redirects, the token where it belongs.

Says what went wrong in this project's errors: TransientError where another try may help.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import chain
from typing import TypeVar
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from bundler.caches import Caches
from bundler.digest import COPY_SIZE, Stream
from bundler.errors import DamagedError, RequestError, UnavailableError, shown
from bundler.patience import (
    ExpiredError,
    Patience,
    TransientError,
    UnreachableError,
    asked_wait,
)

STALL_SECONDS = 30.0
"""A connection on which nothing arrives for so long counts as broken."""
_CONNECT_SECONDS = 10.0
_MOST_REDIRECTS = 10
LARGEST_FILE = 1 << 44
"""Bytes: 16 TiB, as much as ext4 takes in one file."""
_REDIRECTS = (301, 302, 303, 307, 308)

T = TypeVar("T")
Open = Callable[..., Stream]
"""From the first byte wanted, and perhaps the one to end before, to the content between."""
Explain = Callable[[httpx2.Response], UnavailableError | None]
"""Puts a refusal in better words than those at hand; None where it has none."""


class NoPartsError(UnavailableError):
    """The server gives its files as a whole only."""


class _CircleError(UnavailableError):
    """Redirects without end."""


class WrongSizeError(DamagedError):
    """The server announces another size than the content has; none of it was taken."""


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
        if not is_address(match[2]):
            raise RequestError(f"{shown(match[2])} is no address, where {match[1]} is mirrored")
        return cls(*match.groups())

    def __call__(self, url: str) -> str | None:
        """The address of `url` on this mirror, if it is one for it."""
        rest = url.removeprefix(self.origin)
        return self.place + rest if rest != url and rest[:1] in ("", "/", "?") else None


@dataclass(frozen=True, slots=True)
class Heading:
    """What a server says of a file: `size` in bytes, and `mark`, which changes with the content."""

    size: int | None
    mark: str
    media_type: str


class Web:
    """An HTTP client. `tokens`: by origin (`https://host`), what is sent there and nowhere else.

    `timeout`: seconds without a byte after which a connection counts as broken; to make one may
    take ten, or less. `kept`: if set,
    nothing is asked of a network, and what is wanted can only come from there.
    """

    def __init__(
        self,
        mirrors: Sequence[Mirror] = (),
        tokens: Mapping[str, str] | None = None,
        timeout: float = STALL_SECONDS,
        patience: Patience | None = None,
        kept: Caches | None = None,
    ) -> None:
        """Raises RequestError if the proxy or the certificates that are set up here are none."""
        self._mirrors = tuple(mirrors)
        self._tokens = dict(tokens or {})
        self._silent: set[str] = set()
        self.patience = patience or Patience()
        self.kept = kept
        self._client = None
        if kept is None:
            _check_proxies()
            self._client = httpx2.Client(
                # Identity: a compressed answer has neither length nor ranges.
                headers={"User-Agent": "bundler", "Accept-Encoding": "identity"},
                timeout=httpx2.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
                verify=_certificates(),
            )

    def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            self._client.close()

    def places(self, urls: Sequence[str]) -> list[str]:
        """Where to look for what is at each of `urls`: on its mirrors, then there."""
        mirrored = (
            [place for mirror in self._mirrors if (place := mirror(url))] + [url] for url in urls
        )
        return list(dict.fromkeys(chain.from_iterable(mirrored)))

    def open(
        self,
        places: Sequence[str],
        start: int = 0,
        stop: int | None = None,
        *,
        explain: Explain = lambda _: None,
        mark: str = "",
        size: int | None = None,
    ) -> Stream:
        """The content at the first of `places` that has it, from byte `start` on; close it.

        `stop`: the byte to end before; without it, at the end of the content. `explain` may put a
        refusal in better words. `mark`, `size`: what the content is known by, as in `heading`.
        Raises TransientError, UnavailableError (NoPartsError if `stop` is given and the server
        knows no ranges), and DamagedError if the content is another now; reading does too.
        """
        last = "" if stop is None else stop - 1
        ranges = {"Range": f"bytes={start}-{last}"} if start or stop is not None else {}

        def opened(response: httpx2.Response) -> Stream:
            if mark and _mark(response) != mark:
                raise _changed(response)
            _check_size(response, size)
            if response.status_code != 206:
                if stop is not None:
                    raise NoPartsError(f"{response.url.host} gives files as a whole only")
                body = _Body(response)
                _skip(body, start)  # A server that does not know ranges starts at the beginning.
                return body
            _check_range(response, start)
            return _Body(response)

        return self._get(places, ranges, explain, opened, insists=True)

    def heading(self, urls: Sequence[str], explain: Explain = lambda _: None) -> Heading:
        """What a server says of the file at `urls`, of which nothing is read. Raises as `open`."""

        def headed(response: httpx2.Response) -> Heading:
            response.close()
            return Heading(
                _length(response),
                _mark(response),
                response.headers.get("Content-Type", "").partition(";")[0].strip().lower(),
            )

        places = self.places(urls)

        def ask() -> Heading:
            # A GET of one byte: not every server answers a HEAD as it would a GET.
            try:
                return self._get(places, {"Range": "bytes=0-0"}, explain, headed)
            except DamagedError:  # An empty file has no first byte.
                return self._get(places, {}, explain, headed)

        return self.patience.ask(ask)

    def read(
        self,
        urls: Sequence[str],
        limit: int,
        parse: Callable[[bytes, Mapping[str, str]], T],
        explain: Explain = lambda _: None,
    ) -> T:
        """What `parse` makes of a document of at most `limit` bytes, and of its headers.

        Whatever `parse` raises of ValueError, TypeError, KeyError or the like counts as a refusal.
        Raises as `open` does.
        """

        def parsed(response: httpx2.Response) -> T:
            content = bytearray()
            with closing(_Body(response)) as body:
                while data := body.read(COPY_SIZE):
                    content += data
                    if len(content) > limit:
                        raise UnavailableError(
                            f"{response.url.host} sends more than {limit:,} bytes where a short "
                            "answer belongs: check the network, or name a mirror"
                        )
            try:
                return parse(bytes(content), response.headers)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise UnavailableError(
                    f"{response.url.host} does not give the answer that belongs at "
                    f"{response.url.path}: check the network, or name another --endpoint or "
                    "--mirror"
                ) from None

        places = self.places(urls)
        return self.patience.ask(lambda: self._get(places, {}, explain, parsed))

    def _get(
        self,
        places: Sequence[str],
        headers: Mapping[str, str],
        explain: Explain,
        use: Callable[[httpx2.Response], T],
        chain: tuple[str, ...] = (),
        *,
        insists: bool = False,
    ) -> T:
        """What `use` makes of the first good answer. `chain`: the places that have led here.

        Hosts that were silent before are asked last. Raises what tells most of why there is none;
        `insists`: there was something before, so that silence counts more than a refusal.
        """

        def tells(error: Exception) -> int:
            if isinstance(error, NoPartsError):
                return 5
            if isinstance(error, UnreachableError):
                return 2 if insists else 0
            if isinstance(error, TransientError):
                return 4
            return 3 if isinstance(error, DamagedError) else 1

        faults: list[UnavailableError | DamagedError] = []
        for place in sorted(places, key=lambda place: urlsplit(place).netloc in self._silent):
            try:
                return self._ask(place, headers, explain, use, chain, insists)
            except _CircleError:
                if chain:
                    raise  # As long as a circle is, there are mirrors on it to be tried again.
                faults.append(_CircleError(_circle(place)))
            except (UnavailableError, DamagedError) as error:
                if isinstance(error, UnreachableError):
                    self._silent.add(urlsplit(place).netloc)
                faults.append(error)
        # Of equals the last one counts: that place is the one which the others stand in for.
        told = max(reversed(faults), key=tells)
        if isinstance(told, UnreachableError):
            silent = [fault for fault in faults if isinstance(fault, UnreachableError)]
            told.hosts = tuple(host for fault in silent for host in fault.hosts)
            told.is_final = all(fault.is_final for fault in silent)
        hosts = dict.fromkeys(host_of(place) for place in places)
        if len(hosts) > 1 and not chain and not isinstance(told, NoPartsError):
            told.args = (f"{told} (tried: {', '.join(hosts)})",)
        raise told

    def _ask(
        self,
        url: str,
        headers: Mapping[str, str],
        explain: Explain,
        use: Callable[[httpx2.Response], T],
        chain: tuple[str, ...],
        insists: bool,
    ) -> T:
        """What `use` makes of the good answer at `url`, or where that leads to."""
        if self._client is None:
            raise UnavailableError(f"--offline: {host_of(url)} is not asked")
        host = urlsplit(url).netloc
        if self.patience.is_over(host):
            raise _silence(url, "it did not answer before", chain, is_final=True)
        if url in chain or len(chain) > _MOST_REDIRECTS:
            raise _CircleError(_circle(chain[0]))
        token = self._tokens.get(origin(url))
        own = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            request = self._client.build_request("GET", url, headers={**headers, **own})
            response = self._client.send(request, stream=True)
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise _unanswered(url, error, chain) from None
        self._silent.discard(host)
        self.patience.heard(host)
        self._client.cookies.clear()  # Nobody here wants to be recognized.
        try:
            place = response.headers.get("Location")
            if response.status_code not in _REDIRECTS or place is None:
                _check(response, explain, chain, insists)
                return use(response)
        except BaseException:
            response.close()
            raise
        response.close()
        target = _target(response, url, place)
        places = self.places((target,))
        return self._get(places, headers, explain, use, (*chain, url), insists=insists)


def opener(
    web: Web,
    urls: Sequence[str],
    *,
    explain: Explain = lambda _: None,
    mark: str = "",
    size: int | None = None,
) -> tuple[Open, Callable[[], None]]:
    """`web.open` for the file at `urls`, and what makes its next call begin at another place."""
    places = web.places(urls)

    def elsewhere() -> None:
        places[:] = places[1:] + places[:1]

    return partial(web.open, places, explain=explain, mark=mark, size=size), elsewhere


def _circle(url: str) -> str:
    return (
        f"{host_of(url)} leads round in circles for {urlsplit(url).path}: check the network, or "
        "name another --endpoint or --mirror"
    )


def _target(response: httpx2.Response, url: str, place: str) -> str:
    """Where an answer leads to. Raises UnavailableError if that is no address of the web."""
    with suppress(ValueError):
        target = urljoin(url, place)
        if is_address(target):
            return target
    raise UnavailableError(f"{response.url.host} leads to {shown(place)}, which is no address")


def is_address(url: str) -> bool:
    """Whether `url` is one of the web, with a host."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def origin(url: str) -> str:
    """The scheme, host and port of an address, by which tokens are told apart."""
    return f"{urlsplit(url).scheme}://{host_of(url)}"


def host_of(url: str) -> str:
    """The host and port of an address, without a user and a password."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _certificates() -> ssl.SSLContext | bool:
    """Whom to trust, if that is said here. Raises RequestError.

    SSL_CERT_FILE and SSL_CERT_DIR are OpenSSL's and httpx2's own; REQUESTS_CA_BUNDLE, a file or a
    folder, is what many have set up for requests.
    """
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        place = os.environ.get(name)
        if not place:
            continue
        try:
            if name == "SSL_CERT_DIR" or os.path.isdir(place):
                return ssl.create_default_context(capath=place)
            return ssl.create_default_context(cafile=place)
        except OSError as error:  # ssl.SSLError is one.
            raise RequestError(
                f"{name} names {place}, which holds no certificates ({error.strerror}): name a "
                "file in PEM format"
            ) from None
    return True


def _check_proxies() -> None:
    """Raise RequestError if a proxy that is set up here is none. Passwords in it are not told."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        for variable in (name, name.lower()):
            proxy = os.environ.get(variable, "")
            address = proxy if "://" in proxy else f"http://{proxy}"
            try:
                parts = urlsplit(address)
                good = parts.hostname and parts.port != 0 and proxy.isprintable()
                httpx2.Proxy(address)
            except (ValueError, httpx2.InvalidURL):
                good = False
            if good and parts.scheme.startswith("socks") and find_spec("socksio") is None:
                raise RequestError(f"{variable} names a SOCKS proxy: pip install socksio for that")
            if proxy and not good:
                raise RequestError(
                    f"{variable} is no address of a proxy: write http://host:port, and a user and "
                    "password in it percent-encoded"
                )


def _unanswered(url: str, error: Exception, chain: Sequence[str]) -> UnavailableError:
    """What it means that there was no answer."""
    why = reason(error)
    if "CERTIFICATE_VERIFY_FAILED" in why:
        return UnavailableError(
            f"{urlsplit(url).hostname} shows a certificate that nobody known here has signed: if a "
            "company's proxy stands in between, name the file with that company's certificate in "
            "SSL_CERT_FILE"
        )
    if isinstance(error, httpx2.ProxyError) and re.match("40[37]", why):
        return _refused_by_proxy(url, why)
    return _silence(url, why, chain)


def _silence(url: str, why: str, chain: Sequence[str], is_final: bool = False) -> UnreachableError:
    parts = urlsplit(url)
    proxy = _proxy_for(url)
    where = ", which an answer led to," if chain else ""
    through = f" through the proxy {host_of(proxy)}" if proxy else ""
    check = f"{parts.scheme.upper()}_PROXY and NO_PROXY" if proxy else "the network"
    return UnreachableError(
        f"{parts.hostname}{where} cannot be reached{through} ({why}): check {check}, or name a "
        f"mirror with {_option(url, chain)}",
        [parts.netloc],
        is_final,
    )


def _option(url: str, chain: Sequence[str]) -> str:
    """How another place for what is at `url` can be named."""
    return f"--mirror {origin(url)}=…" if chain else "--endpoint or --mirror"


def _proxy_for(url: str) -> str:
    """The address of the proxy that stands between, if any."""
    parts, proxies = urlsplit(url), getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all", "")
    if not proxy or proxy_bypass(host_of(url)):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _refused_by_proxy(url: str, why: str) -> UnavailableError:
    variable = f"{urlsplit(url).scheme.upper()}_PROXY"
    return UnavailableError(
        f"the proxy {host_of(_proxy_for(url))} refuses to lead to {urlsplit(url).hostname} ({why}):"
        f" check {variable}, and write user and password into it if it wants them"
    )


def _check(
    response: httpx2.Response, explain: Explain, chain: Sequence[str], insists: bool
) -> None:
    """Raise what an answer means that brings no content."""
    status, host, url = response.status_code, response.url.host, str(response.url)
    if status in (200, 206):
        return
    where = ", which an answer led to," if chain else ""
    said = f"{host}{where} answered {status} {response.reason_phrase[:60]}"
    advice = f"name a mirror with {_option(url, chain)}"
    if status == 407:
        raise _refused_by_proxy(url, f"{status} {response.reason_phrase}")
    if status in (408, 425, 429) or status >= 500:
        wait = asked_wait(response.headers)
        later = f", and wants to be asked again in {wait:,.0f} s" if wait else ""
        raise TransientError(f"{said}{later}: {advice}" if chain else f"{said}{later}", wait)
    if status == 416:
        raise _changed(response)
    has_expired = chain and response.url.query and status in (401, 403, 410)
    refusal = None if has_expired and insists else explain(response)
    if refusal is None and has_expired:
        raise ExpiredError(f"{said}: {advice}")
    advice = advice if chain else "check the name"
    raise refusal or UnavailableError(f"{said} for {response.url.path}: {advice}")


def _mark(response: httpx2.Response) -> str:
    return response.headers.get("ETag", "") or response.headers.get("Last-Modified", "")


def _changed(response: httpx2.Response) -> DamagedError:
    return DamagedError(
        f"{response.url.host} has other content for {response.url.path} now than when it was "
        "begun: run the same command again"
    )


def _length(response: httpx2.Response) -> int | None:
    """The size of the whole content in bytes, if the answer says it."""
    if response.status_code == 206:
        said = response.headers.get("Content-Range", "").rpartition("/")[2]
    elif response.headers.get("Content-Encoding", "identity") != "identity":
        return None
    else:
        said = response.headers.get("Content-Length", "")
    size = int(said) if re.fullmatch(r"[0-9]{1,18}", said) else None
    if size is not None and size > LARGEST_FILE:
        raise UnavailableError(f"{response.url.host} announces {size:,} bytes, which no disk holds")
    return size


def _check_size(response: httpx2.Response, size: int | None) -> None:
    length = _length(response)
    if size is not None and length not in (None, size):
        raise WrongSizeError(
            f"{response.url.host} announces {length:,} bytes for {response.url.path}, which has "
            f"{size:,}: something on the way alters it; try another network or mirror"
        )


def _check_range(response: httpx2.Response, start: int) -> None:
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    if encoded or not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        raise TransientError(
            f"{response.url.host} sent another part of the file than was asked for"
        )


class _Body:
    """The body of a response: bytes are given out as they arrive, so that none is lost."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        encoded = response.headers.get("Content-Encoding", "identity") != "identity"
        self._chunks = response.iter_bytes() if encoded else response.iter_raw()
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; none at the end. Raises TransientError if the connection breaks."""
        try:
            while not self._rest:
                self._rest = next(self._chunks)
        except StopIteration:
            return b""
        except httpx2.HTTPError as error:
            host = self._response.url.host
            raise TransientError(f"{host} broke off: {reason(error)}") from None
        size = len(self._rest) if size < 0 else size
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
