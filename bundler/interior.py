"""Addresses within: of this machine and of the network around it, where the web may not lead.

Whoever follows a stranger there asks, in the stranger's name, what only those within may ask: a
router, a data base, the keys that a cloud gives its machines at 169.254.169.254.
"""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache
from urllib.parse import urlsplit

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_STAND_INS = ipaddress.ip_network("198.18.0.0/15")
"""What proxies that take over a whole machine give out for every name: RFC 2544 has it free."""
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""RFC 6052: the last four bytes are an address of the older kind."""


def leads_within(url: str, target: str) -> bool:
    """Whether `target` is within, and `url`, which leads there, is not."""
    return not is_interior(url) and is_interior(target)


def is_interior(url: str) -> bool:
    """Whether the host of an address is this machine, or one that only its network can reach.

    Names are looked up, unless a proxy is there to do so.
    """
    from bundler.proxies import proxy_for  # Which takes what a client takes.

    host = urlsplit(url).hostname or ""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    return any(map(_is_within, _addresses(host, not proxy_for(url))))


@lru_cache(maxsize=256)
def _addresses(host: str, may_look_up: bool) -> tuple[_Address, ...]:
    try:
        return (ipaddress.ip_address(host),)
    except ValueError:
        pass
    try:
        return (ipaddress.ip_address(socket.inet_aton(host)),)  # Such as 127.1, or 2130706433.
    except (OSError, UnicodeError, ValueError):
        pass
    if not may_look_up:
        return ()
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()  # Who asks there is told.
    return tuple(ipaddress.ip_address(place[0]) for *_, place in found)


def _is_within(address: _Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        older = address.ipv4_mapped or address.sixtofour
        if older is None and address in _TRANSLATED:
            older = ipaddress.IPv4Address(address.packed[-4:])
        if older is not None:
            return _is_within(older)
    return address not in _STAND_INS and (not address.is_global or address.is_multicast)
