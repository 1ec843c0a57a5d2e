"""Addresses of the web, and their mirrors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from bundler.errors import RequestError, shown


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
                f"the mirror {shown(without_login(text))} is not of the form FROM=TO, such as "
                "https://github.com=https://mirror.example.org/github"
            )
        if not is_address(match[2]):
            origin, place = map(without_login, match.groups())
            raise RequestError(f"{shown(place)} is no address, where {origin} is mirrored")
        return cls(*match.groups())

    def __call__(self, url: str) -> str | None:
        """The address of `url` on this mirror, if it is one for it."""
        rest = url.removeprefix(self.origin)
        return self.place + rest if rest != url and rest[:1] in ("", "/", "?") else None


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


def without_login(text: str) -> str:
    """`text`, which may be no address, as it may be told: what is before an @ may be a password."""
    _, at, rest = text.rpartition("@")
    return f"…@{rest}" if at else text
