"""Proof that the loopback proxy is a good imitation: a real client goes through it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from loopback import Fault, closed_port
from loopback_hub import LoopbackHub
from loopback_proxy import LoopbackProxy

WEIGHTS = bytes(range(256)) * 1000
CONFIG = "http://hub.example/acme/tiny/resolve/main/a%20b%2Fc.json?download=true"


def client(proxy: str, ca_file: Path | None = None) -> httpx2.Client:
    """A client that knows no other way than the proxy, and trusts nobody but the authority."""
    context = ssl.create_default_context(cafile=ca_file)
    return httpx2.Client(
        proxy=proxy, verify=context, follow_redirects=True, timeout=10, trust_env=False
    )


def stands_for(hub: LoopbackHub, scheme: str) -> Mapping[str, tuple[str, int]]:
    """Give a hub and its CDN names; where the names lead is for the proxy only to know."""
    port = 443 if scheme == "https" else 80
    hosts = {}
    for name, url in (("hub.example", hub.url), ("cdn.example", hub.cdn_url)):
        hosts[f"{name}:{port}"] = ("127.0.0.1", urlsplit(url).port or 0)
    hub.url, hub.cdn_url = f"{scheme}://hub.example", f"{scheme}://cdn.example"
    hub.add("acme/tiny", {"a b/c.json": b"{}", "model.safetensors": WEIGHTS})
    return hosts


def status(client: httpx2.Client, url: str) -> int:
    """That of an answer, or of the proxy's refusal to make a tunnel."""
    try:
        return client.get(url).status_code
    except httpx2.ProxyError as error:
        return int(str(error)[:3])


def test_http(hub: LoopbackHub, proxy: LoopbackProxy) -> None:
    proxy.hosts.update(stands_for(hub, "http"))
    with client(proxy.url) as http:
        assert http.get(CONFIG, headers={"X-Own": "kept"}).content == b"{}"
        assert http.head(f"{hub.url}/nowhere").status_code == 404
        weights = http.get(f"{hub.url}/acme/tiny/resolve/main/model.safetensors")
        assert weights.content == WEIGHTS
    assert [(request.method, request.target) for request in proxy.requests] == [
        ("GET", "hub.example:80"),
        ("GET", "hub.example:80"),
        ("HEAD", "hub.example:80"),
        ("GET", "hub.example:80"),
        ("GET", "cdn.example:80"),
    ]
    arrived = hub.requests[0]
    assert arrived.path == "/acme/tiny/resolve/main/a%20b%2Fc.json?download=true"
    assert (arrived.headers["host"], arrived.headers["x-own"]) == ("hub.example", "kept")
    assert arrived.headers["connection"] == "close"


def test_https(tls_hub: LoopbackHub, proxy: LoopbackProxy) -> None:
    proxy.hosts.update(stands_for(tls_hub, "https"))
    address = f"{tls_hub.url}/acme/tiny/resolve/main/model.safetensors"
    with client(proxy.url, tls_hub.ca_file) as https:
        for _ in range(2):
            assert https.get(address).content == WEIGHTS
    # A tunnel is good for several requests, which the proxy does not see.
    assert [(request.method, request.target) for request in proxy.requests] == [
        ("CONNECT", "hub.example:443"),
        ("CONNECT", "cdn.example:443"),
    ]
    assert len(tls_hub.requests) == 4


def test_without_the_proxy_nobody_finds_the_hub(hub: LoopbackHub, proxy: LoopbackProxy) -> None:
    hosts = stands_for(hub, "http")
    with client(proxy.url) as http:
        assert http.get(CONFIG).status_code == 502
        with pytest.raises(httpx2.ProxyError, match="502"):
            http.get("https://hub.example/")
        assert http.get(f"http://127.0.0.1:{closed_port()}/").status_code == 502
        host, port = hosts["hub.example:80"]
        assert http.get(f"http://{host}:{port}/nowhere").status_code == 404
    assert len(hub.requests) == 1
    assert [request.target for request in proxy.requests[:2]] == [
        "hub.example:80",
        "hub.example:443",
    ]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_login(scheme: str, proxy: LoopbackProxy) -> None:
    with LoopbackHub(tls=scheme == "https") as hub:
        proxy.hosts.update(stands_for(hub, scheme))
        proxy.login = "a user", "pass:w/rd"
        address = f"{hub.url}/acme/tiny/resolve/main/model.safetensors"
        for url in (proxy.url, proxy.url_with_login.replace("rd@", "rt@")):
            with client(url, hub.ca_file) as stranger:
                assert status(stranger, address) == 407
        assert hub.requests == []
        with client(proxy.url_with_login, hub.ca_file) as known:
            assert known.get(address).content == WEIGHTS
        logins = [request.headers.get("proxy-authorization") for request in proxy.requests]
        assert logins[0] is None
        assert logins[1] != logins[2]
        assert logins[2:] == ["Basic YSB1c2VyOnBhc3M6dy9yZA=="] * 2
        assert not any("proxy-authorization" in request.headers for request in hub.requests)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_refusal(scheme: str, proxy: LoopbackProxy) -> None:
    proxy.refuse = True
    with client(proxy.url) as http:
        assert status(http, f"{scheme}://127.0.0.1:{closed_port()}/") == 403
    assert len(proxy.requests) == 1


def test_bodies_go_both_ways(hub: LoopbackHub, proxy: LoopbackProxy) -> None:
    proxy.hosts.update(stands_for(hub, "http"))
    with client(proxy.url) as http:
        # The hub takes no POST: that it says so, and not that the request is garbled, is the test.
        assert http.post(CONFIG, content=WEIGHTS).status_code == 501
    assert proxy.requests[0].headers["content-length"] == str(len(WEIGHTS))


def test_damage_arrives_as_it_is(hub: LoopbackHub, proxy: LoopbackProxy) -> None:
    proxy.hosts.update(stands_for(hub, "http"))
    hub.faults.append(Fault(r"model\.", server="cdn", cut=1000))
    with client(proxy.url) as http, pytest.raises(httpx2.RemoteProtocolError):
        http.get(f"{hub.url}/acme/tiny/resolve/main/model.safetensors")
    assert hub.sent(r"model\.") == 1000


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_leaving_ends_what_is_under_way(scheme: str) -> None:
    with LoopbackHub(tls=scheme == "https") as hub, ExitStack() as stack:
        leaving = stack.enter_context(ExitStack())
        proxy = leaving.enter_context(LoopbackProxy())
        proxy.hosts.update(stands_for(hub, scheme))
        hub.faults.append(Fault(r"model\.", server="cdn", cut=1000, stall=True))
        http = stack.enter_context(client(proxy.url, hub.ca_file))
        address = f"{hub.url}/acme/tiny/resolve/main/model.safetensors"
        with http.stream("GET", address) as response:
            received = response.iter_raw(1000)
            assert next(received) == WEIGHTS[:1000]
            leaving.close()
            with pytest.raises(httpx2.RemoteProtocolError):
                next(received)
        with pytest.raises(httpx2.ConnectError):
            http.get(address)
