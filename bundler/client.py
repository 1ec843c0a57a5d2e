"""The HTTP client: one question to one address, past what stands between this machine and the web.

What it takes is imported with it, once something is asked: much is packed without a network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx2

from bundler.addresses import origin
from bundler.errors import UnavailableError
from bundler.proxies import certificates, check_proxies
from bundler.refusals import reason, refused_by_proxy, silence

_CONNECT_SECONDS = 10.0


class Client:
    """An HTTP client that follows no redirects."""

    def __init__(self, timeout: float, tokens: Mapping[str, str]) -> None:
        """Raises SetupError if the proxy or the certificates that are set up here are none.

        `timeout`: seconds without a byte after which a connection counts as broken; to make one may
        take ten, or less. `tokens`: by origin (`https://host`), what is sent there and nowhere
        else.
        """
        check_proxies()
        self._tokens = tokens
        self._client = httpx2.Client(
            # Identity: a compressed answer has neither length nor ranges.
            headers={"User-Agent": "bundler", "Accept-Encoding": "identity"},
            timeout=httpx2.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
            verify=certificates(),
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def answer(self, url: str, headers: Mapping[str, str], is_led_to: bool) -> httpx2.Response:
        """What is said at `url`, of which no content is read yet; close it.

        `is_led_to`: as in `refusals`. Raises UnreachableError or UnavailableError for no answer.
        """
        token = self._tokens.get(origin(url))
        own = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            request = self._client.build_request("GET", url, headers={**headers, **own})
            response = self._client.send(request, stream=True)
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise _unanswered(url, error, is_led_to) from None
        self._client.cookies.clear()  # Nobody here wants to be recognized.
        return response


def _unanswered(url: str, error: Exception, is_led_to: bool) -> UnavailableError:
    """What it means that there was no answer, but `error`."""
    why = reason(error)
    if "CERTIFICATE_VERIFY_FAILED" in why:
        return UnavailableError(
            f"{urlsplit(url).hostname} shows a certificate that nobody known here has signed: if a "
            "company's proxy stands in between, name the file with that company's certificate in "
            "SSL_CERT_FILE"
        )
    if isinstance(error, httpx2.ProxyError) and re.match("40[37]", why):
        return refused_by_proxy(url, why)
    return silence(url, why, is_led_to)
