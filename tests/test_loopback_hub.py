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
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from loopback import Fault
from loopback_hub import LoopbackHub, Repo

WEIGHTS = bytes(range(256)) * 1000
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

    def values(*expressions: str, token: str = "") -> list[Any]:
        environment = {name: value for name, value in os.environ.items() if name[:3] != "HF_"}
        environment |= {
            "HF_ENDPOINT": hub.url,
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
