"""Hubs that say what no hub says: one clear line, exit code 3, and nothing endless."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command import Ran, peak_memory, run, start
from loopback import Answer, Request, text
from loopback_hub import LoopbackHub

COMMIT = "0123456789" * 4
FILE = {"rfilename": "config.json", "size": 2, "blobId": COMMIT}
LARGE = {"rfilename": "model.safetensors", "size": 9, "lfs": {"sha256": "0" * 64, "size": 9}}
INFO: dict[str, Any] = {"id": "acme/tiny", "sha": COMMIT, "siblings": [FILE, LARGE]}
LISTED = {"type": "file", "path": "model.safetensors", "size": 9, "oid": COMMIT}
LONG = 60 << 20
"""Bytes, of the most that is read."""
Odd = Callable[[Request], Answer | None]


class OddHub(LoopbackHub):
    """A hub that answers as `odd` does, where that gives an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.odd: Odd = lambda _: None

    def answer(self, request: Request) -> Answer:
        answer = self.odd(request)
        if answer is None:
            return super().answer(request)
        self.requests.append(request)
        return answer


@pytest.fixture
def odd_hub() -> Iterator[OddHub]:
    hub = OddHub()
    with hub:
        yield hub


def says(document: object, path: str = "/api/", **headers: str) -> Odd:
    """The same JSON to every question whose path matches."""

    def odd(request: Request) -> Answer | None:
        if not re.search(path, request.path):
            return None
        return text(200, json.dumps(document), {"Content-Type": "application/json", **headers})

    return odd


def settings(hub: OddHub) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "BUNDLER_TIMEOUT": "5", "BUNDLER_RETRIES": "2"}


def pack(hub: OddHub, home: Path, spec: str = "acme/tiny", **env: str) -> Ran:
    return run("pack", spec, home=home, env={**settings(hub), **env})


@pytest.mark.parametrize(
    "document",
    [
        pytest.param([], id="a list"),
        pytest.param(None, id="nothing"),
        pytest.param({**INFO, "sha": None}, id="no commit"),
        pytest.param({**INFO, "sha": "main"}, id="a commit that is none"),
        pytest.param({**INFO, "id": [1]}, id="a name that is a list"),
        pytest.param({**INFO, "id": ".."}, id="a name that climbs"),
        pytest.param({**INFO, "id": "../.."}, id="a name that climbs twice"),
        pytest.param({**INFO, "id": "a\x1b[2J/b"}, id="a name that clears the screen"),
        pytest.param({**INFO, "siblings": "config.json"}, id="files that are a text"),
        pytest.param({**INFO, "siblings": [None]}, id="a file that is nothing"),
        pytest.param(
            {**INFO, "siblings": [{**FILE, "rfilename": 5}]}, id="a path that is a number"
        ),
        pytest.param(
            {**INFO, "siblings": [{**FILE, "rfilename": "\udc80"}]}, id="half a character"
        ),
        pytest.param({**INFO, "siblings": [{**FILE, "size": -1}]}, id="a negative size"),
        pytest.param({**INFO, "siblings": [{**FILE, "size": 1.5}]}, id="a broken size"),
        pytest.param({**INFO, "siblings": [{**FILE, "size": True}]}, id="a size that is none"),
        pytest.param({**INFO, "siblings": [{**FILE, "size": 10**15}]}, id="a size of a petabyte"),
        pytest.param({**INFO, "siblings": [{**FILE, "size": 10**400}]}, id="a size beyond all"),
        pytest.param({**INFO, "siblings": [{**FILE, "blobId": "x"}]}, id="a git id that is none"),
        pytest.param({**INFO, "siblings": [{**FILE, "lfs": {}}]}, id="a large file without sha256"),
        pytest.param(
            {**INFO, "siblings": [{**FILE, "lfs": {"sha256": "../x", "size": 1}}]},
            id="a sha256 that is none",
        ),
    ],
)
def test_a_description_that_is_none(odd_hub: OddHub, tmp_path: Path, document: object) -> None:
    odd_hub.odd = says(document)
    done = pack(odd_hub, tmp_path)
    assert (done.code, done.err.count("\n")) == (3, 1), done.err
    assert "does not give the answer that belongs at" in done.err
    assert done.err.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param({}, id="nothing"),
        pytest.param(5, id="a number"),
        pytest.param({**LISTED, "path": 5}, id="a path that is a number"),
        pytest.param({**LISTED, "size": "9"}, id="a size that is a text"),
        pytest.param({"path": "x", "size": 9}, id="no type"),
    ],
)
def test_a_list_of_files_that_is_none(odd_hub: OddHub, tmp_path: Path, entry: object) -> None:
    # Without sizes in the description, the list is asked for.
    described = says({**INFO, "siblings": [{"rfilename": "model.safetensors"}]}, "/revision/")
    listed = says([entry], "/tree/")
    odd_hub.odd = lambda request: described(request) or listed(request)
    done = pack(odd_hub, tmp_path)
    assert (done.code, done.err.count("\n")) == (3, 1), done.err
    assert "does not give the answer that belongs at" in done.err


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("[]", id="empty lists"),
        pytest.param('{"a":1}', id="objects"),
        pytest.param("[" * 900 + "]" * 900, id="lists in lists"),
    ],
)
def test_countless_values_do_not_fill_the_memory(
    odd_hub: OddHub, tmp_path: Path, value: str
) -> None:
    values = ",".join([value] * (LONG // (len(value) + 1)))
    described = f'{json.dumps(INFO)[:-1]}, "more": [{values}]}}'
    odd_hub.odd = lambda _: text(200, described)
    with start("pack", "acme/tiny", home=tmp_path, env=settings(odd_hub)) as process:
        peak = peak_memory(process)
        _, err = process.communicate()
    assert (process.returncode, err.count(b"\n")) == (3, 1), err
    assert b"does not give the answer that belongs at" in err
    assert peak < 6 * LONG


@pytest.mark.parametrize("commits", [[{}], [{"id": 5}], [{"id": "x"}], {"id": COMMIT}])
def test_a_list_of_commits_that_is_none(odd_hub: OddHub, tmp_path: Path, commits: object) -> None:
    odd_hub.add("acme/tiny", {"model.safetensors": b"weights"})
    odd_hub.odd = says(commits, "/commits/")
    done = pack(odd_hub, tmp_path, "acme/tiny@0123456")
    assert (done.code, done.err.count("\n")) == (3, 1), done.err


@pytest.mark.parametrize(
    "link",
    [
        pytest.param("<http://[/api/x>", id="no address"),
        pytest.param("<file:///api/x>", id="a file"),
        pytest.param("<{url}/api/models/acme/tiny/tree/1>", id="always the same"),
    ],
)
def test_a_next_page_that_leads_nowhere(odd_hub: OddHub, tmp_path: Path, link: str) -> None:
    described = says({**INFO, "siblings": [{"rfilename": "model.safetensors"}]}, "/revision/")
    link = link.replace("{url}", odd_hub.url)
    listed = says([LISTED], "/tree/", Link=f'{link}; rel="next"')
    odd_hub.odd = lambda request: described(request) or listed(request)
    done = pack(odd_hub, tmp_path)
    assert (done.code, done.err.count("\n")) == (3, 1), done.err


def test_pages_that_never_end(odd_hub: OddHub, tmp_path: Path) -> None:
    described = says({**INFO, "siblings": [{"rfilename": "model.safetensors"}]}, "/revision/")
    pages = 0

    def odd(request: Request) -> Answer | None:
        nonlocal pages
        if "/tree/" not in request.path:
            return described(request)
        pages += 1
        link = f'<{odd_hub.url}/api/models/acme/tiny/tree/x?page={pages}>; rel="next"'
        return says([LISTED], Link=link)(request)

    odd_hub.odd = odd
    done = pack(odd_hub, tmp_path)
    assert (done.code, "does not end" in done.err) == (3, True)
    assert pages == 1000


def test_an_empty_page_is_the_last(odd_hub: OddHub, tmp_path: Path) -> None:
    described = says({**INFO, "siblings": [{"rfilename": "model.safetensors"}]}, "/revision/")
    listed = says([], "/tree/", Link=f'<{odd_hub.url}/api/models/x>; rel="next"')
    odd_hub.odd = lambda request: described(request) or listed(request)
    done = pack(odd_hub, tmp_path)
    assert (done.code, "has no files" in done.err) == (2, True), done.err
    assert len(odd_hub.requests) == 2


@pytest.mark.parametrize(
    "later",
    ["999999999", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"],
)
def test_whoever_asks_to_wait_for_ages_is_not_waited_for(
    odd_hub: OddHub, tmp_path: Path, later: str
) -> None:
    odd_hub.odd = lambda _: text(503, "", {"Retry-After": later})
    done = pack(odd_hub, tmp_path)
    assert (done.code, done.err.count("\n")) == (3, 1), done.err
    assert "answered 503" in done.err


def test_mirrors_and_redirects_do_not_multiply(odd_hub: OddHub, tmp_path: Path) -> None:
    place = 0

    def odd(request: Request) -> Answer:
        nonlocal place
        place += 1
        return text(302, "", {"Location": f"http://mirrored.example/{place}"})

    odd_hub.odd = odd
    mirror = f"http://mirrored.example={odd_hub.url}/one http://mirrored.example={odd_hub.url}/two"
    done = pack(odd_hub, tmp_path, BUNDLER_MIRROR=mirror, HTTP_PROXY="", http_proxy="")
    assert (done.code, done.err.count("\n")) == (3, 1), done.err
    assert len(odd_hub.requests) <= 40


@pytest.mark.parametrize("name", ["HF_ENDPOINT", "BUNDLER_ENDPOINT", "BUNDLER_MIRROR"])
@pytest.mark.parametrize("address", ["http://[", "http://h:abc", "http://h:0", "http://"])
def test_what_is_no_address_is_told(tmp_path: Path, name: str, address: str) -> None:
    value = f"https://github.com={address}" if name == "BUNDLER_MIRROR" else address
    done = run("pack", "acme/tiny", home=tmp_path, env={name: value})
    assert (done.code, done.err.count("\n")) == (2, 1), done.err


def test_the_password_of_an_endpoint_is_not_told(tmp_path: Path) -> None:
    done = run("pack", "acme/tiny", "--endpoint", "http://me:secret@h", home=tmp_path)
    assert (done.code, "secret" in done.err) == (2, False)


def test_an_endpoint_without_a_scheme_is_told_with_one(tmp_path: Path) -> None:
    done = run("pack", "acme/tiny", "--endpoint", "huggingface.co", home=tmp_path)
    assert (done.code, "do you mean 'https://huggingface.co'?" in done.err) == (2, True)
