"""Where models are looked for: the Hub or hubs, the rest of the web, what is on this machine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial

from bundler.addresses import Mirror
from bundler.caches import Caches
from bundler.endpoints import find_endpoints, trusted_origins
from bundler.environment import find_roots
from bundler.errors import RequestError
from bundler.patience import RETRIES, Patience
from bundler.remote import RemoteSnapshot, Repositories
from bundler.web import STALL_SECONDS, Web

_LONGEST_TIMEOUT = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class Upstream:
    """What the user says about it.

    `endpoints`: the hubs to ask, each where those before it do not help; `HF_ENDPOINT` comes first,
    and the public one is asked if there is no other. `mirrors`: `FROM=TO`, addresses and where to
    look for them first. `token_for`: hosts of those that the token goes to as well. `timeout`:
    seconds without a byte after which a connection counts as broken. `retries`: tries without a new
    byte before a file is given up. `offline`: nothing is asked of a network, and everything comes
    from the libraries' caches on this machine.
    """

    endpoints: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    token_for: tuple[str, ...] = ()
    timeout: float = STALL_SECONDS
    retries: int = RETRIES
    offline: bool = False

    @contextmanager
    def open(self, say: Callable[[str], None]) -> Iterator[tuple[Repositories, Web, Caches]]:
        """Everything to look in; `say` is told what is waited for. Raises RequestError."""
        if not 0 < self.timeout <= _LONGEST_TIMEOUT or self.retries < 1:
            raise RequestError(
                f"the timeout must be more than 0 and at most {_LONGEST_TIMEOUT:,} seconds, and "
                "there must be 1 retry or more"
            )
        caches = Caches(find_roots())
        if self.offline:
            yield caches, Web(patience=Patience(self.retries, say), kept=caches), caches
            return
        endpoints = find_endpoints(self.endpoints)
        mirrors = [Mirror.parse(text) for text in self.mirrors]
        places = [*endpoints, *(mirror.place for mirror in mirrors)]
        trusted = trusted_origins(places, self.token_for)
        patience = Patience(self.retries, say)
        with closing(Web(mirrors, partial(_tokens, trusted), self.timeout, patience)) as web:
            yield _HubOnceAsked(web, endpoints, trusted), web, caches


class _HubOnceAsked:
    """The Hub; what it takes is imported once it is asked, as with the client of `web`."""

    def __init__(self, web: Web, endpoints: Sequence[str], trusted: Collection[str]) -> None:
        self._how = (web, endpoints, trusted)

    def snapshot(
        self,
        source: str,
        kind: str,
        name: str,
        revision: str | None,
        specs: tuple[str, ...] = (),
    ) -> RemoteSnapshot:
        """As `remote.Repositories` has it."""
        from bundler.hub import Hub

        return Hub(*self._how).snapshot(source, kind, name, revision, specs)


def _tokens(trusted: Collection[str]) -> Mapping[str, str]:
    """The user's token, by each origin that it may be sent to. Raises SetupError."""
    from bundler.hub import find_token

    token = find_token()
    return {} if token is None else dict.fromkeys(trusted, token)
