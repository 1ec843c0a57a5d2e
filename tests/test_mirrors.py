"""Packing through several hubs and mirrors, some of which are down, wrong, or not to be trusted."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from command import NOWHERE, Ran, run
from loopback import Answer, Content, Fault, Request, Server, Site, closed_port
from loopback_hub import LoopbackHub, Repo
from loopback_web import LoopbackWeb

import bundler

CONFIG = b'{"model_type": "bert"}'
WEIGHTS = os.urandom(300_000)
FILES: dict[str, Content] = {
    "config.json": CONFIG,
    "model.safetensors": WEIGHTS,
    "vocab.txt": b"a\nb\n",
    **{f"vocab/{number}.txt": b"%d" % number for number in range(20)},
}
AT_ONCE = {"Retry-After": "0"}
SOON = 20.0
"""Seconds that a command may take which nothing keeps waiting, on a machine with other work."""


@pytest.fixture
def mirror(hub: LoopbackHub) -> Iterator[LoopbackHub]:
    """A mirror of the hub, which leads to the hub's CDN for large files."""
    with LoopbackHub(mirror_of=hub) as mirror:
        yield mirror


@pytest.fixture
def other() -> Iterator[LoopbackHub]:
    """Another hub, with a CDN of its own, whose repositories are as one makes them."""
    with LoopbackHub() as other:
        yield other


@pytest.fixture
def long_files(tmp_path: Path) -> dict[str, Content]:
    """Files of a long download."""
    path = tmp_path / "weights"
    with path.open("wb") as file:
        file.truncate(70 << 20)
    return {"config.json": CONFIG, "small.bin": b"small", "model.safetensors": path, "a.txt": b"a"}


class Dropping(LoopbackHub):
    """Hangs up, once, on the first request for a path that ends so."""

    ending = "never"

    def answer(self, request: Request) -> Answer:
        if request.path.endswith(self.ending):
            self.ending = "never"
            raise ConnectionResetError
        return super().answer(request)


class Mute(Site):
    """Takes requests, notes them, and hangs up."""

    def answer(self, request: Request) -> Answer:
        self.requests.append(request)
        raise ConnectionResetError


@contextmanager
def served(site: Site) -> Iterator[str]:
    """The address of a server that answers for `site`."""
    with Server(site) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def dead(host: str = "127.0.0.1") -> str:
    """The address of a hub that is down."""
    return f"http://{host}:{closed_port()}"


def pack(
    home: Path,
    *arguments: object,
    hub: str = "",
    endpoints: tuple[str, ...] = (),
    output: str = "bundle.tar.zst",
    **env: str,
) -> Ran:
    """`bundler pack`; `hub` is HF_ENDPOINT. Nothing of what came before is there, but the home."""
    named = [word for url in endpoints for word in ("--endpoint", url)]
    written = () if "--dry-run" in arguments else ("-o", output)
    env = {**NOWHERE, **({"HF_ENDPOINT": hub} if hub else {}), **env}
    return run("pack", *arguments, *named, *written, home=home, env=env)


def content(bundle: Path, root: Path) -> dict[str, Any]:
    """path -> bytes of every file of the one model in a bundle, read through the public API."""
    result = bundler.unpack(bundle, roots=bundler.find_roots({}, root=root), env=None)
    (snapshot,) = result.snapshots
    folder = f"models--{snapshot.name.replace('/', '--')}"
    base = root / "huggingface" / "hub" / folder / "snapshots" / str(snapshot.commit_hash)
    return {str(entry.path): (base / entry.path).read_bytes() for entry in snapshot.files}


def asked(hub: LoopbackHub, pattern: str = "") -> list[str]:
    """The paths of the requests to the hub itself, not to its CDN, that match the regex."""
    return [r.path for r in hub.requests if r.server == "hub" and re.search(pattern, r.path)]


def with_token(hub: Site) -> list[str]:
    """The paths of the requests that brought a token."""
    return [r.path for r in hub.requests if "authorization" in r.headers]


def in_files(hub: LoopbackHub) -> set[str]:
    """The names of the files whose content was asked for."""
    found = (re.search(r"/resolve/[^/]+/([^?]+)", path) for path in asked(hub, "^/acme"))
    return {match[1] for match in found if match}


def netloc(hub: LoopbackHub) -> str:
    return urlsplit(hub.url).netloc


class TestOrder:
    def test_hf_endpoint_comes_first_and_then_each_endpoint(
        self, hub: LoopbackHub, other: LoopbackHub, tmp_path: Path
    ) -> None:
        with LoopbackHub() as third:
            hub.requests = other.requests = third.requests
            hub.add("acme/tiny", FILES)
            done = pack(tmp_path, "acme/tiny", hub=third.url, endpoints=(other.url, hub.url))
            assert done.code == 0, done.err
            hosts = [request.headers["host"] for request in hub.requests]
            assert hosts[:4] == [netloc(third), netloc(other), netloc(hub), netloc(third)]

    def test_the_variable_lists_several(
        self, hub: LoopbackHub, other: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add("acme/tiny", FILES)
        done = pack(tmp_path, "acme/tiny", BUNDLER_ENDPOINT=f"{other.url} {hub.url}")
        assert done.code == 0, done.err
        assert other.requests

    def test_what_the_first_has_is_asked_of_no_other(
        self, hub: LoopbackHub, other: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add("acme/tiny", FILES)
        other.add("acme/tiny", FILES)
        done = pack(tmp_path, "acme/tiny", hub=f"{hub.url}/", endpoints=(other.url, hub.url))
        assert (done.code, other.requests) == (0, [])
        assert len(asked(hub)) == len(set(asked(hub)))

    def test_a_mirror_for_the_hub_comes_before_it(
        self, hub: LoopbackHub, mirror: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add("acme/tiny", FILES)
        done = pack(tmp_path, "acme/tiny", "--mirror", f"{hub.url}/={mirror.url}", hub=hub.url)
        assert (done.code, asked(hub)) == (0, [])
        assert in_files(mirror) == set(FILES)

    def test_a_mirror_is_for_whole_names_of_hosts(
        self, hub: LoopbackHub, other: LoopbackHub, tmp_path: Path
    ) -> None:
        """`http://127.0.0.1:5000` begins as `http://127.0.0.1:50001` does."""
        hub.add("acme/tiny", FILES)
        wrong = f"{hub.url[:-1]}={other.url}/below"
        done = pack(tmp_path, "acme/tiny", "--mirror", wrong, hub=hub.url)
        assert (done.code, other.requests) == (0, [])

    @pytest.mark.parametrize(
        "text", ["https://github.com", "=", "a=b", "https://a.b=", "ftp://a=b"]
    )
    def test_a_mirror_that_is_none(self, hub: LoopbackHub, tmp_path: Path, text: str) -> None:
        done = pack(tmp_path, "acme/tiny", "--mirror", text, hub=hub.url)
        assert (done.code, done.err.count("\n"), hub.requests) == (2, 1, [])
        assert "FROM=TO" in done.err


class TestDown:
    def test_everything_comes_from_the_second(self, hub: LoopbackHub, tmp_path: Path) -> None:
        hub.add("acme/tiny", FILES)
        began = time.monotonic()
        done = pack(tmp_path, "acme/tiny", hub=dead(), endpoints=(hub.url,))
        assert time.monotonic() - began < SOON
        assert (done.code, done.err) == (0, "")
        assert content(tmp_path / "bundle.tar.zst", tmp_path / "root") == FILES

    def test_who_does_not_answer_is_not_asked_for_every_file(
        self, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add("acme/tiny", FILES)
        mute = Mute()
        with served(mute) as url:
            done = pack(tmp_path, "acme/tiny", hub=url, endpoints=(hub.url,))
        assert (done.code, len(mute.requests)) == (0, 1), done.err
        assert in_files(hub) == set(FILES)

    def test_who_falls_silent_in_the_middle(
        self, hub: LoopbackHub, other: LoopbackHub, tmp_path: Path
    ) -> None:
        """It answers what the model is, and gives the half of one file."""
        for each in (hub, other):
            each.add("acme/tiny", FILES)
        other.faults.append(Fault("xet", server="cdn", times=99, cut=100_000, stall=True))
        done = pack(tmp_path, "acme/tiny", "--timeout", 1, hub=other.url, endpoints=(hub.url,))
        assert done.code == 0, done.err
        assert content(tmp_path / "bundle.tar.zst", tmp_path / "root") == FILES
        # It went on where the other had stopped.
        assert hub.sent("xet") == len(WEIGHTS) - 100_000

    def test_all_of_them(self, tmp_path: Path) -> None:
        began = time.monotonic()
        done = pack(tmp_path, "acme/tiny", hub=dead(), endpoints=(dead("localhost"),))
        assert time.monotonic() - began < SOON
        assert (done.code, done.err.count("\n")) == (3, 1), done.err
        assert "cannot be reached" in done.err
        assert re.search(r"\(tried: 127\.0\.0\.1:\d+, localhost:\d+\)", done.err)

    @pytest.mark.parametrize("first", ["down", "up"])
    def test_the_word_of_who_is_up_counts(
        self, hub: LoopbackHub, tmp_path: Path, first: str
    ) -> None:
        order = (dead(), hub.url) if first == "down" else (hub.url, dead())
        began = time.monotonic()
        done = pack(tmp_path, "acme/nix", hub=order[0], endpoints=order[1:])
        assert time.monotonic() - began < SOON
        assert (done.code, done.err.count("\n")) == (3, 1)
        assert "has no model acme/nix" in done.err
        assert "cannot be reached" not in done.err


class TestSingleFiles:
    """The mirror knows the model, and gets one file of it wrong."""

    @pytest.mark.parametrize(
        "fault",
        [
            pytest.param(Fault("", status=404), id="404"),
            pytest.param(Fault("", status=403), id="403"),
            pytest.param(Fault("", status=503), id="503"),
            pytest.param(Fault("", status=200), id="a page in its place"),
            pytest.param(Fault("", flip=1), id="damaged"),
            pytest.param(Fault("", length=1), id="too short"),
            pytest.param(Fault("", length=1_000_000), id="too long"),
            pytest.param(Fault("", cut=1), id="cut"),
        ],
    )
    @pytest.mark.parametrize(
        ("path", "where"),
        [
            pytest.param("model.safetensors", "/xet-bridge/.*model.safetensors", id="on its CDN"),
            pytest.param("vocab.txt", "/resolve-cache/.*/vocab.txt", id="itself"),
        ],
    )
    def test_that_one_comes_from_the_next(
        self,
        hub: LoopbackHub,
        other: LoopbackHub,
        tmp_path: Path,
        path: str,
        where: str,
        fault: Fault,
    ) -> None:
        for each in (hub, other):
            each.add("acme/tiny", FILES)
        wrong = replace(fault, path=where, times=99)
        other.faults.append(wrong)
        began = time.monotonic()
        done = pack(tmp_path, "acme/tiny", hub=other.url, endpoints=(hub.url,))
        assert time.monotonic() - began < SOON
        assert (done.code, done.err) == (0, "")
        assert content(tmp_path / "bundle.tar.zst", tmp_path / "root") == FILES
        assert wrong.times < 99
        assert in_files(hub) == {path}
        assert in_files(other) == set(FILES)

    @pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
    def test_a_mirror_that_leads_to_no_large_file(
        self, hub: LoopbackHub, mirror: LoopbackHub, tmp_path: Path, status: int
    ) -> None:
        hub.add("acme/tiny", FILES)
        mirror.faults.append(Fault("resolve.*safetensors", times=99, status=status))
        done = pack(tmp_path, "acme/tiny", hub=mirror.url, endpoints=(hub.url,))
        assert (done.code, done.err) == (0, "")
        assert in_files(hub) == {"model.safetensors"}

    def test_a_configuration_that_is_read_for_the_plan(
        self, hub: LoopbackHub, other: LoopbackHub, tmp_path: Path
    ) -> None:
        for each in (hub, other):
            each.add("acme/tiny", FILES)
        other.faults.append(Fault(r"resolve-cache.*config\.json", times=99, flip=3))
        done = pack(tmp_path, "acme/tiny", hub=other.url, endpoints=(hub.url,))
        assert (done.code, done.err, in_files(hub)) == (0, "", {"config.json"})

    def test_damage_of_all_is_told_with_the_name(
        self, hub: LoopbackHub, other: LoopbackHub, tmp_path: Path
    ) -> None:
        for each in (hub, other):
            each.add("acme/tiny", FILES)
            each.faults.append(Fault("xet", times=99, server="cdn", flip=1000))
        done = pack(tmp_path, "acme/tiny", hub=other.url, endpoints=(hub.url,))
        assert done.code == 4
        assert "model.safetensors of acme/tiny" in done.err
        assert not (tmp_path / "bundle.tar.zst").exists()

    def test_a_connection_that_breaks_is_made_anew_though_the_second_has_nothing(
        self, other: LoopbackHub, tmp_path: Path
    ) -> None:
        hub = Dropping()
        with hub:
            hub.add("acme/tiny", FILES)
            hub.ending = "/vocab.txt"
            done = pack(tmp_path, "acme/tiny", hub=hub.url, endpoints=(other.url,))
            assert hub.ending == "never"
        assert (done.code, done.err) == (0, "")

    @pytest.mark.parametrize("path", ["^/api/models/acme/tiny/revision", "resolve/.*/vocab.txt"])
    def test_trouble_that_passes_is_waited_for_though_the_second_has_nothing(
        self, hub: LoopbackHub, other: LoopbackHub, tmp_path: Path, path: str
    ) -> None:
        """Only the first can have it: the word of the second is not the last."""
        hub.add("acme/tiny", FILES)
        hub.faults.append(Fault(path, times=2, status=503, headers=AT_ONCE))
        done = pack(tmp_path, "acme/tiny", hub=hub.url, endpoints=(other.url,))
        assert (done.code, done.err) == (0, "")
        assert hub.faults[0].times == 0


class TestDataPlane:
    def test_a_cdn_that_is_down_is_found_before_a_long_download(
        self,
        hub: LoopbackHub,
        mirror: LoopbackHub,
        long_files: dict[str, Content],
        tmp_path: Path,
    ) -> None:
        hub.add("acme/long", long_files)
        hub.cdn_url = mirror.cdn_url = dead("localhost")
        for option in ("--dry-run", "--all-files"):
            mirror.requests.clear()
            began = time.monotonic()
            done = pack(tmp_path, "acme/long", option, hub=mirror.url)
            assert time.monotonic() - began < SOON
            assert (done.code, done.err.count("\n")) == (3, 1), done.err
            assert "localhost, which an answer led to, cannot be reached" in done.err
            assert f"--mirror {hub.cdn_url}=" in done.err
            # It was tried on the smallest, and nothing else was asked for.
            assert in_files(mirror) == {"config.json", "small.bin"}

    @pytest.mark.parametrize("status", [403, 404])
    def test_so_is_one_that_lets_nobody_in(
        self, hub: LoopbackHub, long_files: dict[str, Content], tmp_path: Path, status: int
    ) -> None:
        """As behind a firewall that knows the hub and no other host."""
        hub.add("acme/long", long_files)
        hub.faults.append(Fault("", server="cdn", times=99, status=status))
        done = pack(tmp_path, "acme/long", "--dry-run", "--retries", 2, hub=hub.url)
        assert (done.code, done.err.count("\n")) == (3, 1), done.err
        assert "localhost" in done.err
        assert f"--mirror {hub.cdn_url}=" in done.err

    def test_so_it_is_for_a_locked_manifest(
        self, hub: LoopbackHub, long_files: dict[str, Content], tmp_path: Path
    ) -> None:
        hub.add("acme/long", long_files)
        assert pack(tmp_path, "acme/long", hub=hub.url, output="first").code == 0
        hub.cdn_url = dead("localhost")
        hub.requests.clear()
        done = pack(
            tmp_path, "--locked", "first", "--store", "new", "--retries", 2, hub=hub.url
        )  # fmt: skip
        assert (done.code, done.err.count("\n")) == (3, 1), done.err
        assert f"--mirror {hub.cdn_url}=" in done.err
        assert in_files(hub) == {"small.bin"}

    def test_a_second_endpoint_helps(
        self,
        hub: LoopbackHub,
        other: LoopbackHub,
        long_files: dict[str, Content],
        tmp_path: Path,
    ) -> None:
        for each in (hub, other):
            each.add("acme/long", long_files)
        other.cdn_url = dead("localhost")
        began = time.monotonic()
        done = pack(tmp_path, "acme/long", hub=other.url, endpoints=(hub.url,))
        assert time.monotonic() - began < SOON
        assert (done.code, done.err) == (0, "")
        assert in_files(hub) >= {"model.safetensors", "small.bin"}
        # Not once for every part.
        assert len(asked(other, "model.safetensors")) <= 1

    def test_a_mirror_for_the_cdn_helps(
        self, hub: LoopbackHub, long_files: dict[str, Content], tmp_path: Path
    ) -> None:
        hub.add("acme/long", long_files)
        mirrored, hub.cdn_url = f"http://cdn.example={hub.cdn_url}", "http://cdn.example"
        done = pack(tmp_path, "acme/long", "--mirror", mirrored, hub=hub.url)
        assert (done.code, done.err) == (0, "")

    def test_of_a_short_download_it_is_told_too(self, hub: LoopbackHub, tmp_path: Path) -> None:
        hub.add("acme/tiny", FILES)
        hub.cdn_url = dead("localhost")
        done = pack(tmp_path, "acme/tiny", "--retries", 2, hub=hub.url)
        assert (done.code, done.err.count("\n")) == (3, 2), done.err
        assert "model.safetensors of acme/tiny: localhost, which" in done.err
        assert f"--mirror {hub.cdn_url}=" in done.err


class TestPages:
    @pytest.fixture
    def repo(self, hub: LoopbackHub) -> Repo:
        """A repository with more commits than are listed on one page."""
        repo = hub.add("acme/tiny", FILES)
        for number in range(60):
            repo.commit_files({"config.json": b'{"number": %d}' % number})
        return repo

    def test_the_links_of_a_mirror_stay_on_it(
        self, hub: LoopbackHub, mirror: LoopbackHub, repo: Repo, tmp_path: Path
    ) -> None:
        *_, first = repo.history("main")
        done = pack(tmp_path, f"acme/tiny@{first[:8]}", hub=mirror.url)
        assert (done.code, done.err, asked(hub)) == (0, "", [])
        assert len(asked(mirror, "/commits/")) == 2
        assert content(tmp_path / "bundle.tar.zst", tmp_path / "root") == FILES

    def test_the_original_is_asked_for_what_the_mirror_does_not_turn_to(
        self, hub: LoopbackHub, mirror: LoopbackHub, repo: Repo, tmp_path: Path
    ) -> None:
        mirror.faults.append(Fault(r"[?&]p=1", times=9, status=404))
        *_, first = repo.history("main")
        done = pack(tmp_path, f"acme/tiny@{first[:8]}", hub=mirror.url)
        assert (done.code, done.err) == (0, "")
        assert asked(hub) == ["/api/models/acme/tiny/commits/main?p=1"]

    def test_a_page_that_nobody_has_is_not_taken_for_a_missing_model(
        self, hub: LoopbackHub, mirror: LoopbackHub, repo: Repo, tmp_path: Path
    ) -> None:
        """The mirror does not turn pages, and the original cannot be reached from here."""
        *_, first = repo.history("main")
        mirror.faults.append(Fault(r"[?&]p=1", times=9, status=404))
        hub.url = dead("localhost")
        done = pack(tmp_path, f"acme/tiny@{first[:8]}", hub=mirror.url)
        assert (done.code, done.err.count("\n")) == (3, 1)
        assert "localhost" in done.err
        assert "has no model" not in done.err

    def test_a_list_too_long_for_one_answer(
        self, hub: LoopbackHub, mirror: LoopbackHub, tmp_path: Path
    ) -> None:
        names = [f"{number:05}.txt" for number in range(50_001)]
        hub.add("acme/many", {**dict.fromkeys(names, b"x"), "model.safetensors": WEIGHTS})
        began = time.monotonic()
        done = pack(tmp_path, "acme/many", "--include", "50000.txt", "--dry-run", hub=mirror.url)
        assert time.monotonic() - began < 2 * SOON
        assert (done.code, done.err, asked(hub)) == (0, "", [])
        assert "1 file" in done.out
        assert len(asked(mirror, "/tree/")) == 51


class TestTheBundle:
    @pytest.mark.parametrize("through", ["endpoint", "mirror", "part of each"])
    def test_it_is_the_same_wherever_it_came_from(
        self, hub: LoopbackHub, mirror: LoopbackHub, tmp_path: Path, through: str
    ) -> None:
        hub.add("acme/tiny", FILES, license="mit")
        homes = [tmp_path / name for name in ("direct", "other")]
        for home in homes:
            home.mkdir()
        assert pack(homes[0], "acme/tiny", hub=hub.url).code == 0
        hub.requests.clear()
        if through == "mirror":
            done = pack(homes[1], "acme/tiny", "--mirror", f"{hub.url}={mirror.url}", hub=hub.url)
        else:
            if through == "part of each":
                mirror.faults.append(Fault("resolve.*vocab", times=99, status=404))
            done = pack(homes[1], "acme/tiny", hub=mirror.url, endpoints=(hub.url,))
        assert (done.code, done.err) == (0, "")
        assert bool(asked(hub)) == (through == "part of each")
        direct, indirect = ((home / "bundle.tar.zst").read_bytes() for home in homes)
        assert direct == indirect

    def test_a_renamed_model_through_a_mirror(
        self, hub: LoopbackHub, mirror: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add("google-bert/bert", FILES, aliases=["bert", "old/bert"])
        for name in ("bert", "old/bert", "Google-Bert/BERT"):
            assert pack(tmp_path, name, hub=mirror.url, output="indirect").code == 0
            assert asked(hub) == []
            assert pack(tmp_path, name, "--store", "new", hub=hub.url, output="direct").code == 0
            hub.requests.clear()
            manifest = bundler.inspect(tmp_path / "indirect").manifest
            assert manifest.snapshots[0].names == (name, "google-bert/bert")
            assert (tmp_path / "indirect").read_bytes() == (tmp_path / "direct").read_bytes()

    def test_no_mirror_is_in_the_manifest(
        self, hub: LoopbackHub, mirror: LoopbackHub, web: LoopbackWeb, tmp_path: Path
    ) -> None:
        url = "https://files.example/x.pth"
        hub.add("acme/tiny", FILES)
        web.add(url, b"weights")
        done = pack(
            tmp_path, "acme/tiny", url, hub=mirror.url, BUNDLER_MIRROR=" ".join(web.mirrors)
        )
        assert done.code == 0, done.err
        manifest = bundler.inspect(tmp_path / "bundle.tar.zst").manifest_bytes
        assert url.encode() in manifest
        for secret in (b"127.0.0.1", b"localhost", str(tmp_path).encode()):
            assert secret not in manifest


class TestTokens:
    """HF_TOKEN is for the hub that HF_ENDPOINT names."""

    def test_it_goes_to_no_other_endpoint(
        self, hub: LoopbackHub, other: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add("acme/secret", FILES, private=True)
        other.add("acme/secret", FILES)
        hub.faults.append(Fault("resolve.*vocab", times=99, status=404))
        done = pack(
            tmp_path, "acme/secret", hub=hub.url, endpoints=(other.url,), HF_TOKEN=hub.token
        )
        assert done.code == 0, done.err
        assert with_token(hub) == asked(hub) != []
        assert asked(other, "vocab")
        assert with_token(other) == []

    def test_it_goes_to_no_cdn_and_no_mirror(
        self, hub: LoopbackHub, mirror: LoopbackHub, tmp_path: Path
    ) -> None:
        """A gated model comes from the hub, which knows the token, though the mirror is first."""
        hub.add("acme/gated", FILES, gated=True)
        through = ("--mirror", f"{hub.url}={mirror.url}")
        done = pack(tmp_path, "acme/gated", *through, hub=hub.url, HF_TOKEN=hub.token)
        assert (done.code, done.err) == (0, "")
        assert content(tmp_path / "bundle.tar.zst", tmp_path / "root") == FILES
        assert asked(mirror, "resolve")
        assert with_token(mirror) == []
        assert in_files(hub) == set(FILES)
        assert with_token(hub) == asked(hub)
        assert {request.server for request in hub.requests} == {"hub", "cdn"}

    def test_unless_the_user_says_so(
        self, hub: LoopbackHub, mirror: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add("acme/gated", FILES, gated=True)
        through = ("--mirror", f"{hub.url}={mirror.url}", "--token-for", netloc(mirror))
        done = pack(tmp_path, "acme/gated", *through, hub=hub.url, HF_TOKEN=hub.token)
        assert (done.code, done.err, asked(hub)) == (0, "", [])
        assert with_token(mirror) == asked(mirror) != []

    def test_or_says_so_of_one_endpoint(
        self, hub: LoopbackHub, mirror: LoopbackHub, tmp_path: Path
    ) -> None:
        """The first has no token, and the second can give what needs one."""
        hub.add("acme/gated", FILES, gated=True)
        done = pack(
            tmp_path, "acme/gated", "--token-for", netloc(hub),
            endpoints=(mirror.url, hub.url), HF_TOKEN=hub.token,
        )  # fmt: skip
        assert (done.code, done.err, with_token(mirror)) == (0, "", [])
        assert in_files(hub) == set(FILES)

    def test_a_mirror_alone_tells_how_to_let_it_have_the_token(
        self, hub: LoopbackHub, mirror: LoopbackHub, tmp_path: Path
    ) -> None:
        hub.add("acme/gated", FILES, gated=True)
        done = pack(tmp_path, "acme/gated", endpoints=(mirror.url,), HF_TOKEN=hub.token)
        assert (done.code, done.err.count("\n"), with_token(mirror)) == (3, 1, [])
        assert f"--token-for {netloc(mirror)}" in done.err

    @pytest.mark.parametrize("host", ["nobody.example", "127.0.0.1", "http://127.0.0.1", ""])
    def test_a_host_that_is_nowhere_else_is_a_mistake(
        self, hub: LoopbackHub, tmp_path: Path, host: str
    ) -> None:
        hub.add("acme/tiny", FILES)
        done = pack(tmp_path, "acme/tiny", "--token-for", host, hub=hub.url, HF_TOKEN=hub.token)
        assert (done.code, done.err.count("\n"), hub.requests) == (2, 1, [])
        assert "is the host of no --endpoint and no --mirror" in done.err

    @pytest.mark.parametrize(
        ("path", "target"),
        [
            pytest.param("/api/models", "api/models/acme/secret?blobs=true", id="the description"),
            pytest.param("/vocab.txt", "acme/secret/resolve/main/vocab.txt", id="a file"),
            pytest.param(
                "/model.safe", "acme/secret/resolve/main/model.safetensors", id="a large file"
            ),
        ],
    )
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_no_redirect_carries_it_away(
        self,
        hub: LoopbackHub,
        other: LoopbackHub,
        tmp_path: Path,
        path: str,
        target: str,
        host: str,
    ) -> None:
        """To another port is away, too."""
        hub.add("acme/secret", FILES, private=True)
        other.add("acme/secret", FILES)
        place = f"http://{host}:{urlsplit(other.url).port}/{target}"
        hub.faults.append(Fault(path, 99, "hub", status=307, headers={"Location": place}))
        done = pack(tmp_path, "acme/secret", hub=hub.url, HF_TOKEN=hub.token)
        assert (done.code, done.err) == (0, "")
        assert asked(other)
        assert with_token(other) == []
