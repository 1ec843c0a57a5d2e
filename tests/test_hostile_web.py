"""Hubs and mirrors that lead astray, or send more than they should: one line, and exit code 3."""

from __future__ import annotations

import functools
import gzip
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import zstandard
from command import Ran, peak_memory, run, start
from loopback import Answer, Fault, Request, text
from loopback_proxy import LoopbackProxy
from test_odd_answers import INFO, LISTED, OddHub, says, settings

MEMORY = 300 << 20
"""Bytes that a pack may take; without any of these answers it takes some 100 MB."""


@pytest.fixture
def odd_hub() -> Iterator[OddHub]:
    hub = OddHub()
    with hub:
        yield hub


def assert_told(done: Ran, *words: str) -> None:
    """Exit code 3, and one plain line with these words."""
    assert (done.code, done.err.count("\n")) == (3, 1), done.err
    assert done.err.removesuffix("\n").isprintable()
    assert [word for word in words if word not in done.err] == []


# Where the web may not lead.

WITHIN: dict[str, str] = {
    "this machine": "127.0.0.1",
    "this machine by its name": "localhost",
    "this machine by a name below its own": "a.localhost.",
    "this machine in short": "127.1",
    "this machine as one number": "2130706433",
    "this machine in octal": "0177.0.0.1",
    "every address": "0.0.0.0",
    "this machine in IPv6": "[::1]",
    "this machine, mapped": "[::ffff:127.0.0.1]",
    "this machine, translated": "[64:ff9b::7f00:1]",
    "the keys that a cloud gives out": "169.254.169.254",
    "the same in IPv6": "[fd00:ec2::254]",
    "a private network": "10.0.0.1",
    "another private network": "192.168.1.1",
    "a neighbour": "[fe80::1]",
    "a provider's own network": "100.64.0.1",
    "many at once": "224.0.0.1",
}


@pytest.fixture
def public_hub(odd_hub: OddHub) -> Iterator[tuple[OddHub, dict[str, str]]]:
    """A hub that only a proxy knows, under a public name, and what is to be set to reach it."""
    with LoopbackProxy() as proxy:
        proxy.hosts["hub.example:80"] = ("127.0.0.1", urlsplit(odd_hub.url).port or 0)
        odd_hub.url = "http://hub.example"
        yield odd_hub, {"HTTP_PROXY": proxy.url, "NO_PROXY": "", "SSL_CERT_DIR": "/nowhere"}


@contextmanager
def listening() -> Iterator[tuple[int, list[object]]]:
    """A port of this machine, and whoever has come to it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        came: list[object] = []

        def accept() -> None:
            while True:
                try:
                    connection, address = server.accept()
                except OSError:
                    return
                came.append(address)
                connection.close()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1], came
        server.shutdown(socket.SHUT_RDWR)


def test_a_public_host_leads_to_nothing_within(
    public_hub: tuple[OddHub, dict[str, str]], tmp_path: Path
) -> None:
    hub, env = public_hub
    hosts = [*WITHIN.values()]
    with listening() as (port, came):

        def odd(request: Request) -> Answer:
            number = int(request.path.split("/")[4])
            target = f"http://{hosts[number]}:{port}/latest/meta-data"
            return text(302, "", {"Location": target})

        hub.odd = odd
        specs = [f"acme/{number}" for number in range(len(hosts))]
        done = run("pack", *specs, home=tmp_path, env={**settings(hub), **env})
        assert came == []
    lines = done.err.splitlines()
    assert (done.code, [line for line in lines if "not of the web" not in line]) == (3, [])
    asked = {line.partition("leads to ")[2].rpartition(f":{port}")[0] for line in lines}
    assert asked == set(hosts)


def test_where_a_name_leads_is_looked_up(
    public_hub: tuple[OddHub, dict[str, str]], tmp_path: Path
) -> None:
    hub, env = public_hub
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, 80)
    except OSError:
        pytest.skip("this machine does not know its own name")
    headers = {"Location": f"http://{name}/x"}
    hub.faults.append(Fault("/api/", times=9, status=302, headers=headers))
    env = {**settings(hub), **env, "NO_PROXY": name}
    assert_told(run("pack", "acme/tiny", home=tmp_path, env=env), "not of the web")


def test_a_mirror_for_what_is_within_is_the_users_word(
    public_hub: tuple[OddHub, dict[str, str]], tmp_path: Path
) -> None:
    hub, env = public_hub
    hub.add("acme/tiny", {"model.safetensors": b"weights"})
    there = "http://10.1.2.3"
    headers = {"Location": f"{there}/api/models/acme/tiny/revision/main?blobs=true&again=1"}
    hub.faults.append(Fault("/api/", status=302, headers=headers))
    env = {**settings(hub), **env, "BUNDLER_MIRROR": f"{there}={hub.url}"}
    assert run("pack", "acme/tiny", "--dry-run", home=tmp_path, env=env).code == 0


def test_a_next_page_within_is_not_turned_to(
    public_hub: tuple[OddHub, dict[str, str]], tmp_path: Path
) -> None:
    hub, env = public_hub
    described = says({**INFO, "siblings": [{"rfilename": "model.safetensors"}]}, "/revision/")
    with listening() as (port, came):
        link = f'<http://127.0.0.1:{port}/api/next>; rel="next"'
        listed = says([LISTED], "/tree/", Link=link)
        hub.odd = lambda request: described(request) or listed(request)
        env = {**settings(hub), **env, "NO_PROXY": "127.0.0.1"}
        assert run("pack", "acme/tiny", home=tmp_path, env=env).code == 3
        assert came == []


def test_a_host_within_may_lead_within(odd_hub: OddHub, tmp_path: Path) -> None:
    odd_hub.add("acme/tiny", {"model.safetensors": b"weights"})
    path = "/api/models/acme/tiny/revision/main?blobs=true&again=1"
    headers = {"Location": f"http://localhost:{urlsplit(odd_hub.url).port}{path}"}
    odd_hub.faults.append(Fault("/api/", status=302, headers=headers))
    env = {**settings(odd_hub), "NO_PROXY": "*"}
    assert run("pack", "acme/tiny", "-o", "b", home=tmp_path, env=env).code == 0


# The token.


def test_whoever_asks_for_the_token_does_not_get_it(odd_hub: OddHub, tmp_path: Path) -> None:
    """By WWW-Authenticate, and by leading to another host, port or scheme."""
    other = OddHub()
    with other:
        elsewhere = other.url.replace("127.0.0.1", "localhost")
        asks = {"WWW-Authenticate": 'Bearer realm="hf", Basic realm="hf"'}
        other.odd = lambda _: text(401, "", asks)
        odd_hub.odd = lambda _: text(302, "", {"Location": f"{elsewhere}/api/x"})
        env = {**settings(odd_hub), "HF_TOKEN": "hf_secret", "NO_PROXY": "*"}
        done = run("pack", "acme/tiny", home=tmp_path, env=env)
        assert (done.code, "hf_secret" in done.err) == (3, False)
        assert {r.headers["authorization"] for r in odd_hub.requests} == {"Bearer hf_secret"}
        assert other.requests
        assert not [r for r in other.requests if "authorization" in r.headers]


# More than there should be.


@functools.cache
def packed_zeros(coding: str) -> bytes:
    """A few bytes that become half a GB, or more, by their own word."""
    if coding == "zstd":
        packer = zstandard.ZstdCompressor().compressobj()
        return b"".join(packer.compress(bytes(1 << 20)) for _ in range(512)) + packer.flush()
    return gzip.compress(bytes(512 << 20), 1)


CODINGS: dict[str, tuple[str, str]] = {
    "gzip": ("/api/", "gzip"),
    "zstd": ("/api/", "zstd"),
    "gzip, zstd": ("/api/", "zstd"),
    "br": ("/api/", "gzip"),
    "x-gzip": ("/resolve/", "gzip"),
}
"""What the answer says it is, which answer that is, and what it is."""


@pytest.mark.parametrize("said", CODINGS)
def test_an_answer_that_grows_does_not_fill_the_memory(
    said: str, odd_hub: OddHub, tmp_path: Path
) -> None:
    of, coding = CODINGS[said]
    odd_hub.add("acme/tiny", {"config.json": b"{}", "model.safetensors": b"weights"})
    body = packed_zeros(coding)

    def odd(request: Request) -> Answer | None:
        if of not in request.path:
            return None
        return Answer(200, {"Content-Encoding": said}, body, 0, len(body))

    odd_hub.odd = odd
    with start("pack", "acme/tiny", home=tmp_path, env=settings(odd_hub)) as process:
        peak = peak_memory(process)
        _, err = process.communicate()
    assert (process.returncode in (3, 4), err.count(b"\n")) == (True, 1), err
    assert peak < MEMORY


def test_a_short_answer_that_was_packed_all_the_same_is_read(
    odd_hub: OddHub, tmp_path: Path
) -> None:
    odd_hub.add("acme/tiny", {"model.safetensors": b"weights"})
    plain = OddHub.answer

    def odd(request: Request) -> Answer | None:
        if "/api/" not in request.path:
            return None
        odd_hub.odd = lambda _: None
        answer = plain(odd_hub, request)
        odd_hub.odd = odd
        assert isinstance(answer.content, bytes)
        body = gzip.compress(answer.content)
        return Answer(200, {**answer.headers, "Content-Encoding": "gzip"}, body, 0, len(body))

    odd_hub.odd = odd
    assert run("pack", "acme/tiny", "-o", "b", home=tmp_path, env=settings(odd_hub)).code == 0


@pytest.mark.parametrize("header", ["X-Long", "Location", "ETag", "Link"])
def test_headers_without_end_are_not_read_to_their_end(
    header: str, odd_hub: OddHub, tmp_path: Path
) -> None:
    odd_hub.odd = lambda _: text(302, "", {header: "http://h/" + "x" * (16 << 20)})
    assert_told(run("pack", "acme/tiny", home=tmp_path, env=settings(odd_hub)))


def test_more_headers_than_anybody_sends_are_not_read(odd_hub: OddHub, tmp_path: Path) -> None:
    headers = {f"X-{number}": "x" for number in range(50_000)}
    odd_hub.odd = lambda _: text(200, json.dumps(INFO), headers)
    assert_told(run("pack", "acme/tiny", home=tmp_path, env=settings(odd_hub)))


# Names of files.

NAMES: dict[str, str] = {
    "above": "../../evil.safetensors",
    "above from inside": "a/../../evil.safetensors",
    "absolute": "/etc/evil.safetensors",
    "a drive": "C:\\evil.safetensors",
    "a device": "aux.safetensors",
    "a line and more": "a\nbundler: all is well.safetensors",
    "a command of a terminal": "\x1b]0;evil\x07.safetensors",
    "the same in one character": "\x9b2Jevil.safetensors",
}


def test_a_name_that_leads_elsewhere_is_refused(odd_hub: OddHub, tmp_path: Path) -> None:
    names = [*NAMES.values()]

    def odd(request: Request) -> Answer:
        name = names[int(request.path.split("/")[4])]
        file = {"rfilename": name, "size": 9, "lfs": {"sha256": "0" * 64, "size": 9}}
        return text(200, json.dumps({**INFO, "siblings": [file]}))

    odd_hub.odd = odd
    specs = [f"acme/{number}" for number in range(len(names))]
    done = run("pack", *specs, home=tmp_path, env=settings(odd_hub))
    lines = done.err.removesuffix("\n").split("\n")
    assert (done.code, len(lines)) == (2, len(names)), done.err
    assert [line for line in lines if not line.isprintable() or "cannot carry" not in line] == []


def test_a_name_that_turns_the_direction_of_text_is_never_shown_as_it_is(
    odd_hub: OddHub, tmp_path: Path
) -> None:
    name = "\u202esnrosnetefas.exe.safetensors"
    file = {"rfilename": name, "size": 9, "lfs": {"sha256": "0" * 64, "size": 9}}
    odd_hub.odd = says({**INFO, "siblings": [file]})
    for options in (("--dry-run",), ("--dry-run", "--json"), ("-o", "b")):
        done = run("pack", "acme/tiny", *options, home=tmp_path, env=settings(odd_hub))
        assert "\u202e" not in done.out + done.err
        if "--json" in options:
            assert json.loads(done.out)["models"][0]["files"][0]["path"] == name
