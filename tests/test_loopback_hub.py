"""Proof that the loopback hub is a good imitation: the real client believes it, byte for byte.

To prove it with another version of the client, set HUB_CLIENT to a Python that has it.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from loopback import Fault, Request, closed_port
from loopback_hub import LoopbackHub, Repo

WEIGHTS = bytes(range(256)) * 1000
# More than the sockets of both sides hold: the server is not done before the client reads.
BIG_WEIGHTS = bytes(32 * 1024 * 1024)
VOCABULARY = b"a line of text\n" * 100
ODD_FILES = {
    ".dotfile": b"hidden",
    "empty.txt": b"",
    "a name with spaces, # and 100%.txt": b"odd",
    "Readme.md": b"one",
    "README.md": b"two",
    "déjà/日本語.bin": b"unicode \xff",
    "deep/" * 20 + "x" * 200 + ".safetensors": b"long",
}
# What the client prints is the value of each expression, or the name of the error it raised.
CLIENT_PROGRAM = """
import json, sys
from huggingface_hub import HfApi, dataset_info, model_info, snapshot_download
def value(expression):
    try:
        return eval(expression)
    except Exception as error:
        return type(error).__name__
print(json.dumps([value(expression) for expression in sys.argv[1:]]))
"""

Client = Callable[..., list[Any]]
Answer = tuple[int, dict[str, str], bytes]


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture
def tiny(hub: LoopbackHub) -> Repo:
    files = {"config.json": b"{}", "vocab.txt": VOCABULARY, "model.safetensors": WEIGHTS}
    return hub.add("acme/tiny", files, license="mit", aliases=["tiny", "old-acme/tiny"])


@pytest.fixture
def client(hub: LoopbackHub, tmp_path: Path) -> Client:
    """Evaluates expressions in a process of its own, with huggingface_hub pointed at the hub."""

    def values(*expressions: str, token: str = "", endpoint: str = "") -> list[Any]:
        environment = {name: value for name, value in os.environ.items() if name[:3] != "HF_"}
        environment |= {
            "HF_ENDPOINT": endpoint or hub.url,
            "HF_HOME": str(tmp_path),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": token,
        }
        python = os.environ.get("HUB_CLIENT", sys.executable)
        command = [python, "-c", CLIENT_PROGRAM, *expressions]
        output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
        found: list[Any] = json.loads(output)
        return found

    return values


def ask(url: str, method: str = "GET", **headers: str) -> Answer:
    """One request as it is, no redirect followed; Accept-Encoding is identity unless given."""
    address, headers = urlsplit(url), {k.replace("_", "-"): v for k, v in headers.items()}
    with closing(http.client.HTTPConnection(address.netloc, timeout=10)) as connection:
        connection.request(method, url.partition(address.netloc)[2], headers=headers)
        with connection.getresponse() as response:
            found = {name.lower(): value for name, value in response.getheaders()}
            return response.status, found, response.read()


@contextmanager
def answer_begun(url: str) -> Iterator[http.client.HTTPResponse]:
    """The answer to a GET of which only the head has been read, and a byte of the body."""
    address = urlsplit(url)
    with closing(http.client.HTTPConnection(address.netloc, timeout=10)) as connection:
        connection.request("GET", url.partition(address.netloc)[2])
        with connection.getresponse() as response:
            response.read(1)
            yield response


def next_page(headers: dict[str, str]) -> str:
    match = re.fullmatch(r'<(.+)>; rel="next"', headers["link"])
    assert match
    return match[1]


def pages(url: str) -> Iterator[list[dict[str, Any]]]:
    """A listing's pages, from the one at `url` on."""
    _, headers, body = ask(url)
    yield json.loads(body)
    while "link" in headers:
        _, headers, body = ask(next_page(headers))
        yield json.loads(body)


def ask_safely(url: str, ca_file: Path | None) -> int:
    """The status of an answer over https, its body read, for those who trust this authority."""
    address = urlsplit(url)
    context = ssl.create_default_context(cafile=ca_file)
    connection = http.client.HTTPSConnection(address.netloc, timeout=10, context=context)
    with closing(connection):
        connection.request("GET", address.path)
        with connection.getresponse() as response:
            response.read()
            return response.status


def broken_pipe() -> None:
    raise BrokenPipeError


def cdn_link(hub: LoopbackHub) -> str:
    status, headers, _ = ask(f"{hub.url}/acme/tiny/resolve/main/model.safetensors")
    assert status == 302
    return headers["location"]


def files_in(folder: str) -> dict[str, bytes]:
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_snapshot_arrives_whole(hub: LoopbackHub, tiny: Repo, client: Client) -> None:
    (folder,) = client("snapshot_download('acme/tiny')")
    assert Path(folder).name == tiny.commit
    assert files_in(folder) == {
        "config.json": b"{}",
        "vocab.txt": VOCABULARY,
        "model.safetensors": WEIGHTS,
    }


def test_odd_names_arrive_whole(hub: LoopbackHub, client: Client) -> None:
    hub.add("acme/odd", ODD_FILES)
    (folder,) = client("snapshot_download('acme/odd')")
    assert files_in(folder) == ODD_FILES


def test_datasets_and_spaces_have_addresses_of_their_own(hub: LoopbackHub, client: Client) -> None:
    for kind in ("dataset", "space"):
        hub.add("acme/same-name", {"kind.txt": kind.encode()}, kind=kind)
    folders = client(
        "snapshot_download('acme/same-name', repo_type='dataset')",
        "snapshot_download('acme/same-name', repo_type='space')",
    )
    assert [files_in(folder)["kind.txt"] for folder in folders] == [b"dataset", b"space"]


def test_model_info_tells_sizes_and_hashes(tiny: Repo, client: Client) -> None:
    (info,) = client(
        "[(info.id, info.sha, info.card_data['license'], info.gated, info.private, {"
        "s.rfilename: [s.size, s.blob_id, s.lfs and [s.lfs.sha256, s.lfs.size, s.lfs.pointer_size]]"
        " for s in info.siblings})"
        " for info in [model_info('acme/tiny', files_metadata=True)]][0]"
    )
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize 256000\n"
    *facts, siblings = info
    assert facts == ["acme/tiny", tiny.commit, "mit", False, False]
    assert siblings["config.json"] == [2, hashlib.sha1(b"blob 2\0{}").hexdigest(), None]
    size, blob_id, lfs = siblings["model.safetensors"]
    blob = f"blob {len(pointer)}\0{pointer}".encode()
    assert blob_id == hashlib.sha1(blob).hexdigest()
    assert [size, lfs] == [len(WEIGHTS), [sha256, len(WEIGHTS), len(pointer)]]


def test_revisions(tiny: Repo, client: Client) -> None:
    first = tiny.commit
    tiny.tag("v1")
    proposed = tiny.commit_files({"config.json": b"proposed"}, branch="refs/pr/1")
    head = tiny.commit_files({"config.json": None})
    assert client(
        "model_info('acme/tiny').sha",
        "model_info('acme/tiny', revision='v1').sha",
        f"model_info('acme/tiny', revision='{first}').sha",
        f"model_info('acme/tiny', revision='{first[:7]}')",
        "snapshot_download('acme/tiny', revision='refs/pr/1')[-40:]",
        "open(snapshot_download('acme/tiny', revision='refs/pr/1') + '/config.json').read()",
        "len(model_info('acme/tiny').siblings)",
    ) == [head, first, first, "RevisionNotFoundError", proposed, "proposed", 2]


def test_commits_are_the_same_every_time(hub: LoopbackHub, tiny: Repo) -> None:
    with LoopbackHub() as other:
        files = {"model.safetensors": WEIGHTS, "vocab.txt": VOCABULARY, "config.json": b"{}"}
        assert other.add("acme/tiny", files).commit == tiny.commit
        assert other.add("acme/other", files).commit != tiny.commit


def test_old_names_lead_to_the_new_one(hub: LoopbackHub, tiny: Repo, client: Client) -> None:
    assert client(
        "model_info('tiny').id",
        "model_info('old-acme/tiny', revision='main', files_metadata=True).siblings[0].size",
        "model_info('ACME/Tiny').id",
        "open(snapshot_download('tiny') + '/config.json').read()",
        "open(snapshot_download('old-acme/tiny') + '/config.json').read()",
    ) == ["acme/tiny", 2, "acme/tiny", "{}", "{}"]
    status, headers, _ = ask(f"{hub.url}/old-acme/tiny/resolve/v%2F1/a%20b.txt?download=true")
    assert (status, headers["location"]) == (
        307,
        "/acme/tiny/resolve/v%2F1/a%20b.txt?download=true",
    )
    status, headers, _ = ask(f"{hub.url}/api/models/tiny/revision/main?blobs=true")
    assert (status, headers["location"]) == (307, "/api/models/acme/tiny/revision/main?blobs=true")
    status, headers, _ = ask(f"{hub.url}/tiny/resolve/main/model.safetensors")
    assert status == 302


def test_what_a_stranger_may_not_see(hub: LoopbackHub, tiny: Repo, client: Client) -> None:
    hub.add("acme/gated", {"a.txt": b"a"}, gated=True)
    hub.add("acme/private", {"a.txt": b"a", "a.bin": WEIGHTS}, private=True)
    hub.add("acme/disabled", {"a.txt": b"a"}, disabled=True)
    questions = [
        "model_info('acme/gated').gated",
        "snapshot_download('acme/gated')[:1]",
        "snapshot_download('acme/private')[:1]",
        "model_info('acme/missing')",
        "model_info('acme/disabled')",
        "HfApi().hf_hub_download('acme/tiny', 'missing.txt')",
    ]
    missing, disabled = "RepositoryNotFoundError", "DisabledRepoError"
    *stranger, entry = client(*questions, token="hf_stranger")
    assert stranger == ["manual", "GatedRepoError", missing, missing, disabled]
    assert entry in ("RemoteEntryNotFoundError", "EntryNotFoundError")
    assert client(*questions, token=hub.token)[:5] == ["manual", "/", "/", missing, disabled]
    to_cdn = [request.headers for request in hub.requests if request.server == "cdn"]
    assert to_cdn
    assert not any("authorization" in headers for headers in to_cdn)

    for path in ("api/models/acme/private", "acme/missing/resolve/main/a.txt"):
        status, headers, _ = ask(f"{hub.url}/{path}")
        assert (status, headers.get("x-error-code")) == (401, None)
    status, headers, _ = ask(f"{hub.url}/acme/gated/resolve/main/a.txt")
    assert (status, headers["x-error-code"]) == (401, "GatedRepo")
    status, headers, _ = ask(f"{hub.url}/acme/tiny/resolve/main/missing.txt", "HEAD")
    assert (status, headers["x-error-code"]) == (404, "EntryNotFound")
    assert headers["x-repo-commit"] == tiny.commit


def test_text_is_gzipped_unless_refused(hub: LoopbackHub, tiny: Repo) -> None:
    blob_id = hashlib.sha1(b"blob %d\0" % len(VOCABULARY) + VOCABULARY).hexdigest()
    status, headers, _ = ask(f"{hub.url}/acme/tiny/resolve/main/vocab.txt")
    assert (status, headers["etag"], headers["x-repo-commit"]) == (307, f'"{blob_id}"', tiny.commit)
    assert headers["location"].startswith("/api/resolve-cache/models/acme/tiny/")

    url = hub.url + headers["location"]
    status, headers, body = ask(url, Accept_Encoding="gzip, deflate", Range="bytes=10-19")
    assert (status, headers["etag"], gzip.decompress(body)) == (200, f'W/"{blob_id}"', VOCABULARY)
    assert headers["transfer-encoding"] == "chunked"
    assert "content-length" not in headers

    status, headers, body = ask(url)
    assert (status, headers["etag"], body) == (200, f'"{blob_id}"', VOCABULARY)
    assert headers["content-length"] == str(len(VOCABULARY))
    status, _, body = ask(url, Range="bytes=10-19")
    assert (status, body) == (206, VOCABULARY[10:20])


def test_weights_are_elsewhere(hub: LoopbackHub, tiny: Repo) -> None:
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    status, headers, _ = ask(f"{hub.url}/acme/tiny/resolve/main/model.safetensors", "HEAD")
    assert (status, headers["x-linked-size"]) == (302, str(len(WEIGHTS)))
    assert headers["x-linked-etag"] == f'"{sha256}"'
    assert headers["content-length"] == str(len("Found. Redirecting to " + headers["location"]))

    link = headers["location"]
    assert link.startswith(hub.cdn_url)
    status, headers, body = ask(link)
    assert (status, body) == (200, WEIGHTS)
    assert re.fullmatch(r'"[0-9a-f]{64}"', headers["etag"])
    assert sha256 not in headers["etag"]
    assert ask(link, authorization=f"Bearer {hub.token}")[0] == 400
    assert ask(link.replace("Expires=1", "Expires=2"))[0] == 403
    hub.link_lifetime = -1
    assert ask(cdn_link(hub))[0] == 403


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "body"),
    [
        ("bytes=5-9", 206, "bytes 5-9/256000", WEIGHTS[5:10]),
        ("bytes=255990-", 206, "bytes 255990-255999/256000", WEIGHTS[-10:]),
        ("bytes=-3", 206, "bytes 255997-255999/256000", WEIGHTS[-3:]),
        ("bytes=256000-", 416, "bytes */256000", b"Range Not Satisfiable"),
    ],
)
def test_ranges(
    hub: LoopbackHub, tiny: Repo, asked: str, status: int, content_range: str, body: bytes
) -> None:
    found, headers, content = ask(cdn_link(hub), Range=asked)
    assert (found, headers["content-range"], content) == (status, content_range, body)
    hub.cdn_honours_range = False
    assert ask(cdn_link(hub), Range=asked)[0::2] == (200, WEIGHTS)


def test_trees_come_in_pages(hub: LoopbackHub, client: Client) -> None:
    hub.add("acme/many", {f"{n % 7}/{n}.txt": b"" for n in range(1500)})
    (paths,) = client("[e.path for e in HfApi().list_repo_tree('acme/many', recursive=True)]")
    assert len(paths) == len(set(paths)) == 1507

    address = f"{hub.url}/api/models/acme/many/tree/main"
    _, headers, body = ask(f"{address}?recursive=true&expand=false")
    assert len(json.loads(body)) == 1000
    assert headers["link"].startswith(f"<{address}?recursive=true&expand=false&cursor=")
    assert len(json.loads(ask(f"{address}?recursive=true&expand=true")[2])) == 50
    assert [entry["type"] for entry in json.loads(ask(address)[2])] == ["directory"] * 7
    assert len(json.loads(ask(f"{address}/3")[2])) == 214


def test_many_pages_of_a_tree(hub: LoopbackHub) -> None:
    repo = hub.add("acme/many", {f"{n % 100}/{n}.txt": b"" for n in range(60_000)})
    address = f"{hub.url}/api/models/acme/many/tree"
    found = list(pages(f"{address}/main?recursive=true"))
    assert [len(page) for page in found] == [1000] * 60 + [100]
    paths = [entry["path"] for page in found for entry in page]
    assert paths == sorted({*paths})

    first, second = repo.commit, repo.commit_files({"a.txt": b"new", "0/0.txt": None})
    counts = [sum(map(len, pages(f"{address}/{at}?recursive=true"))) for at in (first, second)]
    assert counts == [60_100, 60_100]
    assert [len(json.loads(ask(f"{address}/{at}")[2])) for at in (first, second)] == [100, 101]


def test_commits_come_in_pages(hub: LoopbackHub, client: Client) -> None:
    repo = hub.add("acme/busy", {"n.txt": b"0"})
    commits = [repo.commit, *(repo.commit_files({"n.txt": b"%d" % n}) for n in range(1, 120))]
    newest_first = commits[::-1]
    address = f"{hub.url}/api/models/acme/busy/commits/main"
    _, headers, body = ask(f"{address}?expand=title")
    assert [commit["id"] for commit in json.loads(body)] == newest_first[:50]
    assert headers["link"] == f'<{address}?expand=title&p=1>; rel="next"'
    assert [len(page) for page in pages(address)] == [50, 50, 20]
    assert client("[c.commit_id for c in HfApi().list_repo_commits('acme/busy')]") == [newest_first]
    # A full page is the last one if no commits are left.
    _, headers, body = ask(f"{hub.url}/api/models/acme/busy/commits/{commits[49]}")
    assert (len(json.loads(body)), "link" in headers) == (50, False)


def test_faults(hub: LoopbackHub, tiny: Repo) -> None:
    address = f"{hub.url}/acme/tiny/resolve/main/model.safetensors"
    vocabulary = f"{hub.url}/acme/tiny/resolve/main/vocab.txt"
    hub.faults.append(Fault(r"model\.", 2, server="hub", status=429, headers={"Retry-After": "3"}))
    status, headers, _ = ask(address)
    assert (status, headers["retry-after"]) == (429, "3")
    assert [ask(address)[0], ask(address)[0]] == [429, 302]

    hub.faults.append(Fault(r"model\.", flip=70_000))
    damaged = ask(cdn_link(hub))[2]
    assert [n for n, byte in enumerate(damaged) if byte != WEIGHTS[n]] == [70_000]

    hub.faults.append(Fault(r"model\.", cut=100_000))
    with pytest.raises(http.client.IncompleteRead) as cut:
        ask(cdn_link(hub))
    assert cut.value.partial == WEIGHTS[:100_000]

    hub.faults.append(Fault("vocab", cut=100, server="hub"))
    with pytest.raises(http.client.IncompleteRead):
        ask(hub.url + ask(vocabulary)[1]["location"], Accept_Encoding="gzip")
    assert ask(cdn_link(hub))[2] == WEIGHTS


def test_an_answer_may_stall(hub: LoopbackHub, tiny: Repo) -> None:
    hub.faults.append(Fault("/api/models/", cut=10, stall=True))
    with closing(http.client.HTTPConnection(urlsplit(hub.url).netloc, timeout=0.1)) as connection:
        connection.request("GET", "/api/models/acme/tiny")
        with connection.getresponse() as response:
            assert len(response.read(10)) == 10
            with pytest.raises(TimeoutError):
                response.read(1)


def test_an_answer_may_be_slow(hub: LoopbackHub, tiny: Repo) -> None:
    hub.faults.append(Fault(r"model\.", server="cdn", pace=1_000_000))
    link = cdn_link(hub)
    started = time.monotonic()
    assert ask(link)[2] == WEIGHTS
    assert time.monotonic() - started >= len(WEIGHTS) / 1_000_000

    hub.faults.append(Fault(r"model\.", pace=1_000_000, cut=200_000, flip=70_000))
    started = time.monotonic()
    with pytest.raises(http.client.IncompleteRead) as cut:
        ask(link)
    assert time.monotonic() - started >= 0.2
    damaged = bytearray(WEIGHTS[:200_000])
    damaged[70_000] ^= 0xFF
    assert cut.value.partial == damaged

    hub.faults.append(Fault(r"resolve-cache", pace=10_000))
    redirect = ask(f"{hub.url}/acme/tiny/resolve/main/vocab.txt")[1]["location"]
    assert gzip.decompress(ask(hub.url + redirect, Accept_Encoding="gzip")[2]) == VOCABULARY


@pytest.mark.parametrize("fault", [Fault("", pace=10), Fault("", cut=10, stall=True)])
def test_leaving_ends_what_is_under_way(fault: Fault) -> None:
    with ExitStack() as stack:
        hub = stack.enter_context(LoopbackHub())
        hub.add("acme/tiny", {"model.safetensors": WEIGHTS})
        link = cdn_link(hub)
        hub.faults.append(fault)
        with answer_begun(link) as response:
            stack.close()
            with pytest.raises(http.client.IncompleteRead):
                response.read()


def test_a_length_may_be_wrong(hub: LoopbackHub, tiny: Repo) -> None:
    hub.faults.append(Fault(r"model\.", length=100_000, server="cdn"))
    link = cdn_link(hub)
    with closing(http.client.HTTPConnection(urlsplit(link).netloc, timeout=10)) as connection:
        for expected in (WEIGHTS[:100_000], WEIGHTS):
            connection.request("GET", link.partition(hub.cdn_url)[2])
            response = connection.getresponse()
            assert response.headers["Content-Length"] == str(len(expected))
            assert response.read() == expected

    hub.faults.append(Fault(r"model\.", length=100, server="cdn"))
    status, headers, body = ask(link, Range="bytes=1000-1999")
    assert (status, headers["content-range"]) == (206, f"bytes 1000-1999/{len(WEIGHTS)}")
    assert body == WEIGHTS[1000:1100]

    hub.faults.append(Fault(r"model\.", length=len(WEIGHTS) + 10))
    with pytest.raises(http.client.IncompleteRead) as short:
        ask(link)
    assert (short.value.partial, short.value.expected) == (WEIGHTS, 10)


def test_redirects_may_lead_in_circles(hub: LoopbackHub, tiny: Repo) -> None:
    path = "/acme/tiny/resolve/main/model.safetensors"
    hub.faults.append(Fault(r"model\.", times=99, status=302, headers={"Location": path}))
    with (
        httpx2.Client(follow_redirects=True, max_redirects=20, trust_env=False) as client,
        pytest.raises(httpx2.TooManyRedirects),
    ):
        client.get(hub.url + path)
    assert [request.path for request in hub.requests] == [path] * 21
    assert hub.faults[0].times == 99 - 21


def test_what_was_sent_is_counted(hub: LoopbackHub, tiny: Repo) -> None:
    link = cdn_link(hub)
    assert hub.sent("") == 0
    ask(link, "HEAD")
    assert hub.sent("") == 0
    ask(link)
    ask(link, Range="bytes=1000-1999")
    assert hub.sent(r"model\.") == len(WEIGHTS) + 1000
    ask(link, Range=f"bytes={len(WEIGHTS)}-")
    assert hub.sent(r"model\.") == len(WEIGHTS) + 1000

    hub.faults.append(Fault(r"model\.", cut=100_000))
    with pytest.raises(http.client.IncompleteRead):
        ask(link)
    assert hub.sent(r"model\.") == len(WEIGHTS) + 101_000

    redirect = ask(f"{hub.url}/acme/tiny/resolve/main/vocab.txt")[1]["location"]
    _, _, gzipped = ask(hub.url + redirect, Accept_Encoding="gzip")
    assert hub.sent(r"vocab") == len(gzipped)
    hub.faults.append(Fault("resolve-cache", cut=700, stall=True))
    with answer_begun(hub.url + redirect) as response:
        response.read(699)
        assert hub.sent(r"vocab") == len(gzipped) + 700


def test_what_could_not_be_sent_is_not_counted(hub: LoopbackHub) -> None:
    body = hub.body(Request("cdn", "GET", "/x.bin", {}))
    hub.write(body, b"sent", lambda: None)
    with pytest.raises(BrokenPipeError):
        hub.write(body, b"not sent", broken_pipe)
    assert hub.sent("x.bin") == 4

    hub.add("acme/tiny", {"model.safetensors": BIG_WEIGHTS})
    with answer_begun(cdn_link(hub)) as response:
        assert response.status == 200
    assert 0 < hub.sent(r"model\.") < len(BIG_WEIGHTS)


def test_what_is_sent_at_one_time_is_counted(hub: LoopbackHub) -> None:
    hub.add("acme/tiny", {"model.safetensors": BIG_WEIGHTS, "other.bin": WEIGHTS})
    link = cdn_link(hub)
    assert hub.together() == 0
    for _ in range(3):
        ask(link, Range="bytes=0-999999")
    assert hub.together() == 1
    with answer_begun(link) as first, answer_begun(link) as second:
        ask(link, Range="bytes=0-999999")
        ask(ask(f"{hub.url}/acme/tiny/resolve/main/other.bin")[1]["location"])
        first.read()
        second.read()
    assert (hub.together(), hub.together(r"model\."), hub.together("other")) == (3, 3, 1)


def test_a_mirror_leads_past_itself(hub: LoopbackHub, tiny: Repo, client: Client) -> None:
    hub.add("acme/many", {f"{n}.txt": b"" for n in range(1500)})
    with LoopbackHub(mirror_of=hub) as mirror:
        (folder,) = client("snapshot_download('acme/tiny')", endpoint=mirror.url)
        assert files_in(folder)["model.safetensors"] == WEIGHTS
        assert files_in(folder)["vocab.txt"] == VOCABULARY
        assert {request.server for request in mirror.requests} == {"hub"}
        assert {request.server for request in hub.requests} == {"cdn"}
        assert (mirror.sent("vocab") > 0, hub.sent("vocab")) == (True, 0)

        path = "/api/models/acme/many/tree/main"
        _, headers, _ = ask(mirror.url + path)
        assert next_page(headers).startswith(f"{hub.url}{path}?")
        assert sum(map(len, pages(mirror.url + path))) == 1500
        assert hub.requests[-1].path.startswith(path)

        mirror.faults.append(Fault("", status=503))
        assert [ask(site.url + path)[0] for site in (hub, mirror, mirror)] == [200, 503, 200]


def test_a_port_may_be_closed(hub: LoopbackHub) -> None:
    with pytest.raises(ConnectionRefusedError):
        ask(f"http://127.0.0.1:{closed_port()}/")
    # Taken, all the same.
    with pytest.raises(OSError, match="in use"):
        LoopbackHub(closed_port())


def test_it_speaks_https(
    tls_hub: LoopbackHub, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls_hub.add("acme/tiny", {"config.json": b"{}", "model.safetensors": WEIGHTS})
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_hub.ca_file))
    (folder,) = client("snapshot_download('acme/tiny')", endpoint=tls_hub.url)
    assert files_in(folder) == {"config.json": b"{}", "model.safetensors": WEIGHTS}
    assert {request.server for request in tls_hub.requests} == {"hub", "cdn"}
    assert (tls_hub.url[:18], tls_hub.cdn_url[:18]) == ("https://127.0.0.1:", "https://localhost:")

    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)
    assert client("model_info('acme/tiny').id", endpoint=tls_hub.url) != ["acme/tiny"]


def test_certificates_are_checked(tls_hub: LoopbackHub) -> None:
    tls_hub.add("acme/tiny", {"config.json": b"{}"})
    url = f"{tls_hub.url}/api/models/acme/tiny"
    assert ask_safely(url, tls_hub.ca_file) == 200
    assert ask_safely(url.replace("127.0.0.1", "localhost"), tls_hub.ca_file) == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        ask_safely(url, None)
    with LoopbackHub(tls=True) as other:
        assert ask_safely(f"{other.url}/nowhere", tls_hub.ca_file) == 404


def test_faults_over_https(tls_hub: LoopbackHub) -> None:
    tls_hub.add("acme/tiny", {"config.json": b"{}"})
    tls_hub.faults.append(Fault("", cut=10))
    with pytest.raises(http.client.IncompleteRead):
        ask_safely(f"{tls_hub.url}/api/models/acme/tiny", tls_hub.ca_file)
    assert tls_hub.sent("") == 10


def test_an_unfinished_handshake_is_in_nobodys_way(tls_hub: LoopbackHub) -> None:
    address = urlsplit(tls_hub.url)
    with socket.create_connection((address.hostname, address.port)):
        assert ask_safely(f"{tls_hub.url}/nowhere", tls_hub.ca_file) == 404


def test_a_connection_is_kept(hub: LoopbackHub, tiny: Repo) -> None:
    with closing(http.client.HTTPConnection(urlsplit(hub.url).netloc, timeout=10)) as connection:
        connection.connect()
        first_socket = connection.sock
        for method in ("HEAD", "GET"):
            for path in ("/api/models/acme/tiny", "/acme/tiny/resolve/main/vocab.txt", "/nowhere"):
                connection.request(method, path, headers={"Accept-Encoding": "gzip"})
                connection.getresponse().read()
                assert connection.sock is first_socket


def test_it_serves_a_folder_until_told_to_stop(tmp_path: Path) -> None:
    for name in ("acme/big", "bare"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "weights.bin").write_bytes(WEIGHTS)
    command = [sys.executable, str(Path(__file__).with_name("loopback_hub.py")), str(tmp_path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    for stop in ("stdin", "SIGTERM"):
        with subprocess.Popen(command, **pipes) as process:
            assert process.stdin
            assert process.stdout
            url = process.stdout.readline().strip()
            for name in ("acme/big", "bare"):
                _, headers, _ = ask(f"{url}/{name}/resolve/main/weights.bin")
                assert ask(headers["location"])[2] == WEIGHTS
            if stop == "stdin":
                process.stdin.close()
            else:
                process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 0
