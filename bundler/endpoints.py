"""Which hubs are asked, and which of all places the user's token may be sent to."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from bundler.addresses import host_of, is_address, origin
from bundler.errors import RequestError, shown

DEFAULT_ENDPOINT = "https://huggingface.co"


def find_endpoints(named: Sequence[str]) -> tuple[str, ...]:
    """The hubs to ask, in order: that of `HF_ENDPOINT`, then those `named`, else the public one.

    Raises RequestError for one that is no address.
    """
    configured = os.environ.get("HF_ENDPOINT")
    endpoints = [*([configured] if configured else []), *named] or [DEFAULT_ENDPOINT]
    for endpoint in endpoints:
        if "@" in endpoint:
            raise RequestError("an endpoint holds no user and password: write https://host")
        if not is_address(endpoint) or "?" in endpoint or "#" in endpoint:
            meant = f"https://{endpoint}"
            hint = f": do you mean {shown(meant)}?" if is_address(meant) else ""
            raise RequestError(f"the endpoint {shown(endpoint)} is no http or https address{hint}")
    return tuple(dict.fromkeys(endpoint.rstrip("/") for endpoint in endpoints))


def trusted_origins(places: Sequence[str], token_for: Sequence[str] = ()) -> frozenset[str]:
    """Where the user's token may be sent to.

    That is the Hub that is set up here, for which it was given, and those `places` whose host is in
    `token_for`, whatever else a command line names. Raises RequestError for a host of which there
    is no place.
    """
    hosts = {host_of(place).lower() for place in places}
    token_for = [re.sub(".*(://|@)", "", named).rstrip("/").lower() for named in token_for]
    for named in token_for:
        if named not in hosts:
            raise RequestError(
                f"--token-for {shown(named)} is the host of no --endpoint and no --mirror: these "
                f"are {', '.join(sorted(hosts))}"
            )
    own = origin(os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT)
    return frozenset({own, *(origin(p) for p in places if host_of(p).lower() in token_for)})
