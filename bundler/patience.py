"""How long a server in trouble is waited for."""

from __future__ import annotations

import math
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from bundler.errors import UnavailableError

RETRIES = 8
"""Tries without a single new byte before something is given up: a minute, as waits grow."""
GREETINGS = 2
"""Tries where more are not likely to help, and somebody waits to be told."""
_LONGEST_WAIT = 30.0
_LONGEST_ASKED_WAIT = 300.0
"""Seconds; up to this, a server's own word is obeyed, and nobody waits who is to wait longer."""
_GIVEN_UP_SECONDS = 30.0
_TOLD_FROM = 5.0
"""Seconds; a shorter wait is not worth a word."""

T = TypeVar("T")


class TransientError(UnavailableError):
    """Not to be had at the moment. `wait`: seconds after which the server wants another try."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait
        self.tries = 1
        """How many there were in vain, once nobody tries any more."""


class ExpiredError(TransientError):
    """Refused as links are that have expired; a new one was just asked for."""


class UnreachableError(TransientError):
    """No answer at all from `hosts`. `is_final`: all of them were waited for in vain before."""

    def __init__(self, message: str, hosts: Sequence[str], is_final: bool = False) -> None:
        super().__init__(message)
        self.hosts = tuple(hosts)
        self.is_final = is_final


class Cancelled(Exception):
    """The work was given up while something was waited for."""


@dataclass(frozen=True, slots=True)
class Patience:
    """`retries`: tries before giving up. `say` is told of every wait that a person would notice."""

    retries: int = RETRIES
    say: Callable[[str], None] = lambda _: None
    stop: threading.Event = field(default_factory=threading.Event)
    """Ends every wait, when set."""
    _given_up: dict[str, float] = field(default_factory=dict)
    _heard: dict[str, float] = field(default_factory=dict)

    def heard(self, host: str) -> None:
        """Note that `host` has answered."""
        self._heard[host] = time.monotonic()
        self._given_up.pop(host, None)

    def is_over(self, host: str) -> bool:
        """Whether `host` was waited for in vain, and not long ago: others need not do so too."""
        return time.monotonic() < self._given_up.get(host, -math.inf) + _GIVEN_UP_SECONDS

    def ask(self, attempt: Callable[[], T]) -> T:
        """What `attempt` gives, as `insist` has it; who does not answer at all is soon given up."""
        return self.insist(attempt, unanswered=min(GREETINGS, self.retries))

    def insist(
        self,
        attempt: Callable[[], T],
        arrived: Callable[[], int] = lambda: 0,
        stop: threading.Event | None = None,
        unanswered: int | None = None,
    ) -> T:
        """What `attempt` gives, tried again while it raises TransientError; else raises as it does.

        `arrived`: bytes that are here; a try that brought some does not count. `stop` ends a wait
        with Cancelled. `unanswered`: tries where there is no answer at all, if not as many as else.
        """
        began, failures, most = time.monotonic(), 0, arrived()
        while True:
            try:
                return attempt()
            except TransientError as error:
                # More than ever: what is dropped and comes again is no progress.
                here = arrived()
                failures = 0 if here > most else failures + 1
                most = max(most, here)
                error.tries = max(1, failures)
                tries = self.retries
                if isinstance(error, ExpiredError):
                    tries = min(tries, GREETINGS)
                if isinstance(error, UnreachableError):
                    tries = 0 if error.is_final else unanswered or tries
                    if failures >= tries and not error.is_final:
                        # One file that hangs says nothing of a host that answers others.
                        mute = [h for h in error.hosts if self._heard.get(h, -math.inf) < began]
                        self._given_up.update(dict.fromkeys(mute, time.monotonic()))
                if failures >= tries or (error.wait or 0) > _LONGEST_ASKED_WAIT:
                    raise
                seconds = _wait(failures, error)
                if seconds >= _TOLD_FROM:
                    self.say(f"{error}; trying again in {seconds:.0f} s")
                if (stop or self.stop).wait(seconds):
                    raise Cancelled from None


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds until a server wants to be asked again, if it says so.

    RFC 9110 has Retry-After, in seconds or as a date; the Hub says `t=` in RateLimit too.
    """
    said = headers.get("Retry-After", "")
    if said.isascii() and said.isdigit():
        return float(said)
    with suppress(ValueError, TypeError, OverflowError):
        then = parsedate_to_datetime(said)
        return max(0.0, (then - datetime.now(then.tzinfo)).total_seconds())
    match = re.search(r"(?:^|[;,\s])t=(\d{1,6})\b", headers.get("RateLimit", ""))
    return float(match[1]) if match else None


def _wait(failures: int, error: TransientError) -> float:
    """Seconds: as asked for, else none after progress, then doubling from half a second.

    Spread by chance, so that many do not come back at once.
    """
    if error.wait is not None:
        return error.wait
    if not failures:
        return 0.0
    return min(_LONGEST_WAIT, 2.0 ** min(failures - 2, 9)) * random.uniform(1, 1.5)
