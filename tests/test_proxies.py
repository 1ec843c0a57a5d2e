"""Packing through proxies, and with a company's own certificates."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from command import Ran, run
from loopback import Content, closed_port
from loopback_hub import LoopbackHub
from loopback_proxy import LoopbackProxy
from loopback_web import LoopbackWeb

import bundler

WEIGHTS = os.urandom(300_000)
FILES: dict[str, Content] = {"config.json": b"{}", "model.safetensors": WEIGHTS, "a.txt": b"a"}
URL = "https://files.example/x.pth"
SOON = 20.0
"""Seconds that a command may take which nothing keeps waiting, on a machine with other work."""
# So that no certificates are read, which takes longer than many a test.
NO_CERTIFICATES = {"SSL_CERT_DIR": "/nowhere"}


def pack(home: Path, *arguments: object, **env: str) -> Ran:
    """`bundler pack` in an environment of which this is all that concerns the network."""
    output = () if "--dry-run" in arguments else ("-o", "bundle.tar.zst")
    return run("pack", *arguments, *output, home=home, env=env)


def packed(home: Path) -> list[str]:
    """The names of the models in the bundle."""
    manifest = bundler.inspect(home / "bundle.tar.zst").manifest
    return [snapshot.name for snapshot in manifest.snapshots]


def stands_for(hub: LoopbackHub, scheme: str) -> dict[str, tuple[str, int]]:
    """Give a hub and its CDN names; where the names lead is for the proxy only to know."""
    port = {"http": 80, "https": 443}[scheme]
    hosts = {}
    for name, url in (("hub.example", hub.url), ("cdn.example", hub.cdn_url)):
        hosts[f"{name}:{port}"] = ("127.0.0.1", urlsplit(url).port or 0)
    hub.url, hub.cdn_url = f"{scheme}://hub.example", f"{scheme}://cdn.example"
    hub.add("acme/tiny", FILES)
    return hosts


class Behind:
    """A hub that only a proxy knows, and a folder to work in."""

    def __init__(self, hub: LoopbackHub, proxy: LoopbackProxy, scheme: str, home: Path) -> None:
        self.hub = hub
        self.proxy = proxy
        self.scheme = scheme
        self.variable = f"{scheme.upper()}_PROXY"
        self.home = home
        self.port = {"http": 80, "https": 443}[scheme]

    def pack(self, proxy: str, **env: str) -> Ran:
        """`bundler pack acme/tiny` through the proxy at an address."""
        is_tls = self.scheme == "https"
        trust = {"SSL_CERT_FILE": str(self.hub.ca_file)} if is_tls else NO_CERTIFICATES
        variables = {"HF_ENDPOINT": self.hub.url, self.variable: proxy, **trust, **env}
        return pack(self.home, "acme/tiny", **variables)


@pytest.fixture(params=["http", "https"])
def behind(
    request: pytest.FixtureRequest, proxy: LoopbackProxy, tmp_path: Path
) -> Iterator[Behind]:
    with LoopbackHub(tls=request.param == "https") as hub:
        proxy.hosts.update(stands_for(hub, request.param))
        yield Behind(hub, proxy, request.param, tmp_path)


class TestProxies:
    def test_hub_and_cdn_are_asked_through_it(self, behind: Behind) -> None:
        done = behind.pack(behind.proxy.url)
        assert (done.code, done.err) == (0, "")
        targets = {f"{name}.example:{behind.port}" for name in ("hub", "cdn")}
        assert {request.target for request in behind.proxy.requests} == targets
        assert packed(behind.home) == ["acme/tiny"]

    def test_other_spellings_of_the_variable(self, behind: Behind) -> None:
        for variable in ("ALL_PROXY", "all_proxy", behind.variable.lower()):
            behind.variable = variable
            behind.proxy.requests.clear()
            assert behind.pack(behind.proxy.url).code == 0
            assert behind.proxy.requests

    def test_an_address_without_a_scheme(self, behind: Behind) -> None:
        assert behind.pack(behind.proxy.url.removeprefix("http://")).code == 0

    def test_a_login(self, behind: Behind) -> None:
        behind.proxy.login = "a user", "open:sesa/me"
        done = behind.pack(behind.proxy.url_with_login)
        assert (done.code, done.err) == (0, "")
        assert all("proxy-authorization" in r.headers for r in behind.proxy.requests)
        # It is the proxy's, and nobody else's.
        assert not [r for r in behind.hub.requests if "proxy-authorization" in r.headers]
        written = [path for path in behind.home.rglob("*") if path.is_file()]
        assert len(written) > len(FILES)
        said = [done.raw, *(path.read_bytes() for path in written)]
        for secret in ("open:sesa/me", behind.proxy.url_with_login):
            assert not [text for text in said if secret.encode() in text]

    @pytest.mark.parametrize("given", ["a wrong password", "no password"])
    def test_a_login_that_the_proxy_does_not_take(self, behind: Behind, given: str) -> None:
        behind.proxy.login = "me", "right"
        url = behind.proxy.url
        if given == "a wrong password":
            url = behind.proxy.url_with_login.replace("right", "opensesame")
        began = time.monotonic()
        done = behind.pack(url)
        assert time.monotonic() - began < SOON
        assert (done.code, done.err.count("\n"), behind.hub.requests) == (3, 1, []), done.err
        assert "407" in done.err
        assert behind.variable in done.err
        assert "opensesame" not in done.err

    def test_one_that_refuses(self, behind: Behind) -> None:
        behind.proxy.refuse = True
        began = time.monotonic()
        done = behind.pack(behind.proxy.url)
        assert time.monotonic() - began < SOON
        assert (done.code, done.err.count("\n"), behind.hub.requests) == (3, 1, []), done.err
        assert "hub.example" in done.err
        assert "proxy" in done.err

    def test_one_that_does_not_know_the_cdn(self, behind: Behind) -> None:
        del behind.proxy.hosts[f"cdn.example:{behind.port}"]
        done = behind.pack(behind.proxy.url, BUNDLER_RETRIES="2")
        assert done.code == 3
        told, rest = done.err.split("\n", 1)
        assert "model.safetensors of acme/tiny: cdn.example" in told
        assert f"--mirror {behind.hub.cdn_url}=" in told
        assert rest.count("\n") == 1

    def test_one_that_is_down(self, behind: Behind) -> None:
        began = time.monotonic()
        done = behind.pack(f"http://127.0.0.1:{closed_port()}")
        assert time.monotonic() - began < SOON
        assert (done.code, done.err.count("\n"), behind.hub.requests) == (3, 1, []), done.err
        assert "hub.example cannot be reached" in done.err
        assert "the proxy" in done.err

    @pytest.mark.parametrize(
        "address",
        [
            "http://",
            "ftp://127.0.0.1:1",
            "socks5://127.0.0.1:1",
            "http://127.0.0.1:x",
            "127.0.0.1:x",
            pytest.param("http://me:opensesame@127.0.0.1:x", id="a password, and no port"),
            pytest.param(" http://me:opensesame@127.0.0.1:1", id="a space before"),
            pytest.param("http://me:open#sesame@127.0.0.1:1", id="a password with #"),
            pytest.param("http://me:open/sesame@127.0.0.1:1", id="a password with a slash"),
        ],
    )
    def test_an_address_that_is_none(self, hub: LoopbackHub, tmp_path: Path, address: str) -> None:
        """The password that may be in it is not for the screen."""
        hub.add("acme/tiny", FILES)
        done = pack(
            tmp_path, "acme/tiny", HF_ENDPOINT=hub.url, HTTP_PROXY=address, **NO_CERTIFICATES
        )
        assert (done.code, done.err.count("\n"), hub.requests) == (2, 1, []), done.err
        assert "HTTP_PROXY" in done.err
        assert "open" not in done.err

    @pytest.mark.parametrize(
        "names", ["127.0.0.1,localhost", "*", " localhost , 127.0.0.1 ", "127.0.0.0/8,localhost"]
    )
    def test_no_proxy(
        self, hub: LoopbackHub, proxy: LoopbackProxy, tmp_path: Path, names: str
    ) -> None:
        hub.add("acme/tiny", FILES)
        env = {"HF_ENDPOINT": hub.url, "HTTP_PROXY": proxy.url, **NO_CERTIFICATES}
        assert pack(tmp_path, "acme/tiny", NO_PROXY=names, **env).code == 0
        assert proxy.requests == []
        assert pack(tmp_path, "acme/tiny", "--store", "new", **env).code == 0
        assert proxy.requests

    def test_a_hub_inside_whose_cdn_is_outside(self, behind: Behind) -> None:
        inside = behind.proxy.hosts.pop(f"hub.example:{behind.port}")[1]
        behind.hub.url = f"{behind.scheme}://127.0.0.1:{inside}"
        done = behind.pack(behind.proxy.url, NO_PROXY="127.0.0.1")
        assert (done.code, done.err) == (0, "")
        targets = {request.target for request in behind.proxy.requests}
        assert targets == {f"cdn.example:{behind.port}"}


class TestOtherHosts:
    """What comes from elsewhere than the hub comes the same way."""

    @pytest.fixture(autouse=True)
    def _names(self, web: LoopbackWeb, proxy: LoopbackProxy) -> None:
        for name, url in (("web.example", web.url), ("assets.example", web.other_url)):
            proxy.hosts[f"{name}:80"] = ("127.0.0.1", urlsplit(url).port or 0)
        web.url, web.other_url = "http://web.example", "http://assets.example"
        web.add(URL, WEIGHTS)
        web.add_repository("o/r", {"hubconf.py": b""})

    @pytest.mark.parametrize(
        ("spec", "names"),
        [
            (URL, {"web.example:80"}),
            ("torchhub:o/r", {"web.example:80", "assets.example:80"}),
        ],
    )
    def test_through_the_proxy(
        self, web: LoopbackWeb, proxy: LoopbackProxy, tmp_path: Path, spec: str, names: set[str]
    ) -> None:
        env = {"BUNDLER_MIRROR": " ".join(web.mirrors), **NO_CERTIFICATES}
        done = pack(tmp_path, spec, HTTP_PROXY=proxy.url, **env)
        assert (done.code, done.err) == (0, "")
        assert {request.target for request in proxy.requests} == names

    def test_a_login_that_the_proxy_does_not_take(
        self, web: LoopbackWeb, proxy: LoopbackProxy, tmp_path: Path
    ) -> None:
        proxy.login = "me", "right"
        spec = f"{web.url}/files.example/x.pth"
        done = pack(tmp_path, spec, HTTP_PROXY=proxy.url, **NO_CERTIFICATES)
        assert (done.code, done.err.count("\n"), web.requests) == (3, 1, []), done.err
        assert "HTTP_PROXY" in done.err

    def test_an_https_address(
        self, tls_hub: LoopbackHub, proxy: LoopbackProxy, tmp_path: Path
    ) -> None:
        proxy.hosts.update(stands_for(tls_hub, "https"))
        url = f"{tls_hub.url}/acme/tiny/resolve/main/model.safetensors"
        done = pack(tmp_path, url, HTTPS_PROXY=proxy.url, SSL_CERT_FILE=str(tls_hub.ca_file))
        assert (done.code, done.err) == (0, "")
        assert {(r.method, r.target) for r in proxy.requests} == {
            ("CONNECT", "hub.example:443"),
            ("CONNECT", "cdn.example:443"),
        }
        assert packed(tmp_path) == [url]


class TestCertificates:
    @pytest.fixture(autouse=True)
    def _repository(self, tls_hub: LoopbackHub) -> None:
        tls_hub.add("acme/tiny", FILES)

    @pytest.mark.parametrize("what", ["the hub", "the CDN", "an address", "the second endpoint"])
    def test_one_that_nobody_knows(
        self, tls_hub: LoopbackHub, hub: LoopbackHub, tmp_path: Path, what: str
    ) -> None:
        spec, env = "acme/tiny", {"HF_ENDPOINT": tls_hub.url}
        if what == "the CDN":
            # The hub is trusted in plain text, and its CDN is another's.
            hub.add("acme/tiny", FILES)
            env["HF_ENDPOINT"], hub.cdn_url = hub.url, tls_hub.cdn_url
        elif what == "an address":
            spec = f"{tls_hub.url}/acme/tiny/resolve/main/a.txt"
        elif what == "the second endpoint":
            env = {"HF_ENDPOINT": f"http://127.0.0.1:{closed_port()}"}
            env["BUNDLER_ENDPOINT"] = tls_hub.url
        began = time.monotonic()
        done = pack(tmp_path, spec, **env)
        assert time.monotonic() - began < SOON
        (told, *rest) = done.err.splitlines()
        assert done.code == 3
        assert "SSL_CERT_FILE" in told
        assert "certificate" in told
        # The files that came are worth a line of their own.
        assert len(rest) == (what == "the CDN")
        assert tls_hub.requests == []

    def test_neither_behind_a_proxy(
        self, tls_hub: LoopbackHub, proxy: LoopbackProxy, tmp_path: Path
    ) -> None:
        proxy.hosts.update(stands_for(tls_hub, "https"))
        done = pack(tmp_path, "acme/tiny", HF_ENDPOINT=tls_hub.url, HTTPS_PROXY=proxy.url)
        assert (done.code, done.err.count("\n"), tls_hub.requests) == (3, 1, []), done.err
        assert "SSL_CERT_FILE" in done.err
        assert len(proxy.requests) == 1

    def test_another_endpoint_is_asked(
        self, tls_hub: LoopbackHub, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add("acme/tiny", FILES)
        env = {"HF_ENDPOINT": tls_hub.url, **NO_CERTIFICATES}
        done = pack(tmp_path, "acme/tiny", "--endpoint", hub.url, **env)
        assert (done.code, done.err, tls_hub.requests) == (0, "", [])

    @pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
    def test_a_file(self, tls_hub: LoopbackHub, tmp_path: Path, variable: str) -> None:
        trust = {variable: str(tls_hub.ca_file)}
        done = pack(tmp_path, "acme/tiny", HF_ENDPOINT=tls_hub.url, **trust)
        assert (done.code, done.err) == (0, "")
        assert {request.server for request in tls_hub.requests} == {"hub", "cdn"}

    @pytest.mark.parametrize("variable", ["SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
    def test_a_folder(self, tls_hub: LoopbackHub, tmp_path: Path, variable: str) -> None:
        """In which OpenSSL finds certificates by the hash of whom they name."""
        if shutil.which("openssl") is None:
            pytest.skip("no openssl to name the files")
        folder = tmp_path / "certificates"
        folder.mkdir()
        shutil.copy(tls_hub.ca_file, folder / "ca.pem")
        ran = subprocess.run(
            ["openssl", "x509", "-hash", "-noout", "-in", folder / "ca.pem"],
            capture_output=True,
            text=True,
            check=True,
        )
        (folder / "ca.pem").rename(folder / f"{ran.stdout.strip()}.0")
        trust = {variable: str(folder)}
        done = pack(tmp_path, "acme/tiny", HF_ENDPOINT=tls_hub.url, **trust)
        assert (done.code, done.err) == (0, "")

    def test_the_first_of_two_variables_counts(self, tls_hub: LoopbackHub, tmp_path: Path) -> None:
        trust = {"SSL_CERT_FILE": str(tls_hub.ca_file), "REQUESTS_CA_BUNDLE": "/nowhere"}
        assert pack(tmp_path, "acme/tiny", HF_ENDPOINT=tls_hub.url, **trust).code == 0

    def test_an_empty_variable_is_none(self, tls_hub: LoopbackHub, tmp_path: Path) -> None:
        trust = {"SSL_CERT_FILE": "", "REQUESTS_CA_BUNDLE": str(tls_hub.ca_file)}
        assert pack(tmp_path, "acme/tiny", HF_ENDPOINT=tls_hub.url, **trust).code == 0

    @pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
    @pytest.mark.parametrize("text", [None, b"", b"no certificate", b"\x30\x82\x01\x0a", b"begun"])
    def test_a_file_that_holds_none(
        self, tls_hub: LoopbackHub, tmp_path: Path, variable: str, text: bytes | None
    ) -> None:
        path = tmp_path / "company.pem"
        if text is not None:
            path.write_bytes(tls_hub.ca_file.read_bytes()[:200] if text == b"begun" else text)
        done = pack(tmp_path, "acme/tiny", HF_ENDPOINT=tls_hub.url, **{variable: str(path)})
        assert (done.code, done.err.count("\n"), tls_hub.requests) == (2, 1, []), done.err
        assert str(path) in done.err
        assert variable in done.err

    def test_what_is_packed_offline_needs_none(self, tmp_path: Path) -> None:
        (tmp_path / "x.bin").write_bytes(WEIGHTS)
        broken = {"SSL_CERT_FILE": "/nowhere/company.pem", "HTTPS_PROXY": "ftp://127.0.0.1"}
        done = pack(tmp_path, "--offline", "file:x.bin", **broken)
        assert (done.code, done.err) == (0, "")

    def test_nothing_switches_verification_off(self, tls_hub: LoopbackHub, tmp_path: Path) -> None:
        shown = run("pack", "--help", home=tmp_path).out
        assert "--mirror" in shown
        assert not re.search(r"--[\w-]*(verif|insecure|certif|ssl|tls)", shown, re.IGNORECASE)
        off = {
            "HF_HUB_DISABLE_SSL_VERIFICATION": "1",
            "PYTHONHTTPSVERIFY": "0",
            "CURL_CA_BUNDLE": "",
        }
        done = pack(tmp_path, "acme/tiny", HF_ENDPOINT=tls_hub.url, **off)
        assert (done.code, tls_hub.requests) == (3, [])
