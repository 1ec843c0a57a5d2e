"""Why there is no content at an address, in this project's errors.

Each function takes `is_led_to`: whether another answer has led to that address, of which the user
then knows nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bundler.addresses import origin
from bundler.errors import DamagedError, UnavailableError
from bundler.patience import ExpiredError, TransientError, UnreachableError, asked_wait

if TYPE_CHECKING:  # Most of what is imported for a network is imported with the client alone.
    import httpx2

Explain = Callable[["httpx2.Response"], UnavailableError | None]
"""Puts a refusal in better words than those at hand; None where it has none."""


def unexplained(_: httpx2.Response) -> None:
    """The words at hand will do."""


def silence(url: str, why: str, is_led_to: bool, is_final: bool = False) -> UnreachableError:
    """Nobody answers at `url`. `is_final`: as in UnreachableError."""
    parts, proxy = urlsplit(url), _proxy_for(url)
    through = f" through the proxy {proxy}" if proxy else ""
    check = f"{parts.scheme.upper()}_PROXY and NO_PROXY" if proxy else "the network"
    option = _mirror_option(url) if is_led_to else "--endpoint or --mirror"
    return UnreachableError(
        f"{parts.hostname}{_led_to(is_led_to)} cannot be reached{through} ({why}): check {check}, "
        f"or name a mirror with {option}",
        [parts.netloc],
        is_final,
    )


def check(response: httpx2.Response, explain: Explain, is_led_to: bool, insists: bool) -> None:
    """Raise what an answer means that brings no content.

    `insists`: there was something before, so that a link that is refused now may have expired.
    """
    status, host, url = response.status_code, response.url.host, str(response.url)
    if status in (200, 206):
        return
    said = f"{host}{_led_to(is_led_to)} answered {status} {response.reason_phrase[:60]}"
    advice = f"name a mirror with {_mirror_option(url)}" if is_led_to else "check the name"
    if status == 407:
        raise refused_by_proxy(url, f"{status} {response.reason_phrase}")
    if status in (408, 425, 429) or status >= 500:
        wait = asked_wait(response.headers)
        later = f", and wants to be asked again in {wait:,.0f} s" if wait else ""
        raise TransientError(f"{said}{later}{f': {advice}' if is_led_to else ''}", wait)
    if status == 416:
        raise changed(response)
    has_expired = is_led_to and response.url.query and status in (401, 403, 410)
    refusal = None if has_expired and insists else explain(response)
    if refusal is None and has_expired:
        raise ExpiredError(f"{said}: {advice}")
    raise refusal or UnavailableError(f"{said} for {response.url.path}: {advice}")


def changed(response: httpx2.Response) -> DamagedError:
    """The content is not the one that was asked for before."""
    return DamagedError(
        f"{response.url.host} has other content for {response.url.path} now than when it was "
        "begun: run the same command again"
    )


def reason(error: Exception) -> str:
    """What went wrong, without the number that the system has for it."""
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__


def refused_by_proxy(url: str, why: str) -> UnavailableError:
    """The proxy on the way says no, as `why` has it."""
    parts = urlsplit(url)
    return UnavailableError(
        f"the proxy {_proxy_for(url)} refuses to lead to {parts.hostname} ({why}): check "
        f"{parts.scheme.upper()}_PROXY, and write user and password into it if it wants them"
    )


def _proxy_for(url: str) -> str:
    from bundler.proxies import proxy_for  # Which takes what a client takes.

    return proxy_for(url)


def _led_to(is_led_to: bool) -> str:
    return ", which an answer led to," if is_led_to else ""


def _mirror_option(url: str) -> str:
    """How another place for what is at `url` can be named."""
    return f"--mirror {origin(url)}=…"
