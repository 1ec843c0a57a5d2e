"""One address -> an answer: through mirrors, proxies and redirects, the token where it belongs.

Says what went wrong in this project's errors: TransientError where another try may help.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.parse import urljoin, urlsplit

from bundler.addresses import Mirror, host_of, is_address
from bundler.answers import Body, Heading, check_same
from bundler.caches import Caches
from bundler.digest import COPY_SIZE, Stream
from bundler.documents import MALFORMED
from bundler.errors import DamagedError, UnavailableError, shown
from bundler.interior import leads_within
from bundler.origin import Origin
from bundler.patience import Patience, TransientError, UnreachableError
from bundler.refusals import Explain, check, silence, unexplained

if TYPE_CHECKING:  # As in `refusals`.
    import httpx2

    from bundler.client import Client

STALL_SECONDS = 30.0
"""A connection on which nothing arrives for so long counts as broken."""
_MOST_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)

T = TypeVar("T")


class NoPartsError(UnavailableError):
    """The server gives its files as a whole only."""


class _CircleError(UnavailableError):
    """Redirects without end."""


@dataclass(frozen=True, slots=True)
class _Question(Generic[T]):
    """What is asked of each place, the same wherever that leads; `use` makes of an answer a T.

    `insists`: there was an answer before, so that silence counts more than a refusal.
    """

    use: Callable[[httpx2.Response], T]
    explain: Explain
    headers: Mapping[str, str]
    insists: bool = False


class Web:
    """An HTTP client."""

    def __init__(
        self,
        mirrors: Sequence[Mirror] = (),
        tokens: Callable[[], Mapping[str, str]] = dict,
        timeout: float = STALL_SECONDS,
        patience: Patience | None = None,
        kept: Caches | None = None,
    ) -> None:
        """Nothing is looked up, and no connection made, before something is asked.

        `tokens` finds those for `Client`, and `timeout` is as there. `kept`: if set, nothing is
        asked of a network, and all can only come from there.
        """
        self._mirrors = tuple(mirrors)
        self._tokens = tokens
        self._timeout = timeout
        self._silent: set[str] = set()
        self.patience = patience or Patience()
        self.kept = kept
        self._client: Client | None = None
        self._connecting = threading.Lock()

    def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            self._client.close()

    def places(self, urls: Sequence[str]) -> list[str]:
        """Where to look for what is at each of `urls`: on its mirrors, then there."""
        found: list[str] = []
        for url in urls:
            found += [place for mirror in self._mirrors if (place := mirror(url))]
            found.append(url)
        return list(dict.fromkeys(found))

    def open(
        self,
        places: Sequence[str],
        start: int = 0,
        stop: int | None = None,
        *,
        explain: Explain = unexplained,
        mark: str = "",
        size: int | None = None,
    ) -> Stream:
        """The content at the first of `places` that has it, from byte `start` on; close it.

        `stop`: the byte to end before; without it, at the end of the content. `explain` may put a
        refusal in better words. `mark`, `size`: what the content is known by, as in `heading`.

        Raises TransientError, UnavailableError (NoPartsError if `stop` is given and the server
        knows no ranges), and DamagedError if the content is another now; reading does too. Raises
        SetupError if what is set up here for the web is wrong.
        """

        def opened(response: httpx2.Response) -> Stream:
            check_same(response, mark, size)
            if stop is not None and response.status_code != 206:
                raise NoPartsError(f"{response.url.host} gives files as a whole only")
            return Body.at(response, start)

        last = "" if stop is None else stop - 1
        ranges = {"Range": f"bytes={start}-{last}"} if start or stop is not None else {}
        return self._get(places, _Question(opened, explain, ranges, insists=True))

    def heading(self, urls: Sequence[str], explain: Explain = unexplained) -> Heading:
        """What a server says of the file at `urls`, of which nothing is read. Raises as `open`."""

        def headed(response: httpx2.Response) -> Heading:
            response.close()
            return Heading.of(response)

        places = self.places(urls)

        def ask() -> Heading:
            # A GET of one byte: not every server answers a HEAD as it would a GET.
            try:
                return self._get(places, _Question(headed, explain, {"Range": "bytes=0-0"}))
            except DamagedError:  # An empty file has no first byte.
                return self._get(places, _Question(headed, explain, {}))

        return self.patience.ask(ask)

    def read(
        self,
        urls: Sequence[str],
        limit: int,
        parse: Callable[[bytes, Mapping[str, str]], T],
        explain: Explain = unexplained,
    ) -> T:
        """What `parse` makes of a document of at most `limit` bytes, and of its headers.

        Whatever `parse` raises that is one of `documents.MALFORMED` counts as a refusal.
        Raises as `open` does.
        """

        def parsed(response: httpx2.Response) -> T:
            content = bytearray()
            with closing(Body(response)) as body:
                while data := body.read(COPY_SIZE):
                    content += data
                    if len(content) > limit:
                        raise UnavailableError(
                            f"{response.url.host} sends more than {limit:,} bytes where a short "
                            "answer belongs: check the network, or name a mirror"
                        )
            try:
                return parse(bytes(content), response.headers)
            except MALFORMED:
                raise UnavailableError(
                    f"{response.url.host} does not give the answer that belongs at "
                    f"{response.url.path}: check the network, or name another --endpoint or "
                    "--mirror"
                ) from None

        places = self.places(urls)
        return self.patience.ask(lambda: self._get(places, _Question(parsed, explain, {})))

    def _get(self, places: Sequence[str], question: _Question[T], trail: tuple[str, ...] = ()) -> T:
        """What the first good answer gives; hosts that were silent before are asked last.

        `trail`: the addresses that have led here. Raises what tells most of why there is none.
        """
        faults: list[UnavailableError | DamagedError] = []
        for place in sorted(places, key=lambda place: urlsplit(place).netloc in self._silent):
            try:
                return self._ask(place, question, trail)
            except (UnavailableError, DamagedError) as error:
                if trail and isinstance(error, _CircleError):
                    raise  # As long as a circle is, there are mirrors on it to be tried again.
                if isinstance(error, UnreachableError):
                    self._silent.add(urlsplit(place).netloc)
                faults.append(error)
        # Of equals the last one counts: that place is the one which the others stand in for.
        told = max(reversed(faults), key=partial(_telling, insists=question.insists))
        if isinstance(told, UnreachableError):
            silent = [fault for fault in faults if isinstance(fault, UnreachableError)]
            told.hosts = tuple(host for fault in silent for host in fault.hosts)
            told.is_final = all(fault.is_final for fault in silent)
        hosts = dict.fromkeys(host_of(place) for place in places)
        if len(hosts) > 1 and not trail and not isinstance(told, NoPartsError):
            told.args = (f"{told} (tried: {', '.join(hosts)})",)
        raise told

    def _ask(self, url: str, question: _Question[T], trail: tuple[str, ...]) -> T:
        """What the good answer at `url` gives, or the one where that leads to."""
        if self.kept is not None:
            raise UnavailableError(f"--offline: {host_of(url)} is not asked")
        host, is_led_to = urlsplit(url).netloc, bool(trail)
        if self.patience.is_over(host):
            raise silence(url, "it did not answer before", is_led_to, is_final=True)
        if url in trail or len(trail) > _MOST_REDIRECTS:
            raise _CircleError(
                f"{host_of(trail[0])} leads round in circles for {urlsplit(trail[0]).path}: check "
                "the network, or name another --endpoint or --mirror"
            )
        response = self._connected().answer(url, question.headers, is_led_to)
        self._silent.discard(host)
        self.patience.heard(host)
        try:
            place = response.headers.get("Location")
            if response.status_code not in _REDIRECTS or place is None:
                check(response, question.explain, is_led_to, question.insists)
                return question.use(response)
        except BaseException:
            response.close()
            raise
        response.close()
        return self._get(self._led_to(url, _target(url, place)), question, (*trail, url))

    def _led_to(self, url: str, target: str) -> list[str]:
        """Where to look for what `url` leads to. Raises UnavailableError if that is within."""
        places = self.places((target,))
        if leads_within(url, target):
            places.remove(target)  # Mirrors of it are places that the user has named.
            if not places:
                raise UnavailableError(
                    f"{host_of(url)} leads to {host_of(target)}, which is not of the web but of "
                    "the network around this machine, and is not asked: name another --endpoint, "
                    "or a mirror for it with --mirror"
                )
        return places

    def _connected(self) -> Client:
        """The client, made by the first thread that asks."""
        with self._connecting:
            if self._client is None:
                from bundler.client import Client

                self._client = Client(self._timeout, self._tokens())
            return self._client


class WebFile(Origin):
    """The file at some addresses, all of which have the same."""

    __slots__ = ("_gives_parts", "_identity", "_places", "_read", "_resumes")

    def __init__(
        self,
        web: Web,
        urls: Sequence[str],
        identity: str,
        *,
        explain: Explain = unexplained,
        mark: str = "",
        size: int | None = None,
        resumes: bool = True,
        gives_parts: bool = False,
    ) -> None:
        """`explain`, `mark` and `size` as in `Web.open`, the rest as in `Origin`."""
        self._identity = identity
        self._places = web.places(urls)
        self._read = partial(web.open, self._places, explain=explain, mark=mark, size=size)
        self._resumes = resumes
        self._gives_parts = gives_parts

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def resumes(self) -> bool:
        return self._resumes

    @property
    def part(self) -> Callable[[int, int], Stream] | None:
        return self._read if self._gives_parts else None

    def open(self, start: int, /) -> Stream:
        return self._read(start)

    def elsewhere(self) -> None:
        self._places[:] = self._places[1:] + self._places[:1]


def _telling(error: Exception, insists: bool) -> int:
    """How much an error tells of why there is no answer; `insists` as in `_Question`."""
    if isinstance(error, NoPartsError):
        return 5
    if isinstance(error, UnreachableError):
        return 2 if insists else 0
    if isinstance(error, TransientError):
        return 4
    return 3 if isinstance(error, DamagedError) else 1


def _target(url: str, place: str) -> str:
    """Where `url` leads to. Raises UnavailableError if that is no address of the web."""
    with suppress(ValueError):
        target = urljoin(url, place)
        if is_address(target):
            return target
    raise UnavailableError(f"{urlsplit(url).hostname} leads to {shown(place)}, which is no address")
