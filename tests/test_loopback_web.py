"""Proof that the loopback web is a good imitation: git itself believes it, byte for byte."""

from __future__ import annotations

import http.client
import io
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from loopback import Fault
from loopback_web import KNOWN_HOSTS, LoopbackWeb

WEIGHTS = bytes(range(256)) * 1000
FILE = "https://download.pytorch.org/models/x.pth"
DINO = "https://github.com/facebookresearch/dinov2"
BUFFALO = "https://github.com/deepinsight/insightface/releases/download/v0.7/buffalo_l.zip"
CODE = {
    "hubconf.py": b"dependencies = ['torch']\n" * 9,
    "dinov2/__init__.py": b"",
    "dinov2/hub/déjà vu.py": b"seen",
    "dinov2-notes.md": b"sorted before the folder dinov2/",
    "dinov2.md": b"as this one is",
}
LINKS = {"docs": "dinov2/hub", "dinov2/hub/up": "../../hubconf.py"}

Git = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def client() -> Iterator[httpx2.Client]:
    """Follows no redirect unless told to, and asks for no compression."""
    headers = {"Accept-Encoding": "identity"}
    with httpx2.Client(headers=headers, timeout=10, trust_env=False) as client:
        yield client


@pytest.fixture
def git(tmp_path: Path) -> Git:
    """The real git, with no settings and no one to ask for a password."""
    program = shutil.which("git")
    if program is None:
        pytest.skip("git is not installed")
    person = {"NAME": "A", "EMAIL": "a@example.org", "DATE": "2024-01-01T00:00:00Z"}
    environment = {
        "HOME": str(tmp_path),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        **{f"GIT_{role}_{key}": person[key] for role in ("AUTHOR", "COMMITTER") for key in person},
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [program, *arguments]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True)

    return run


@pytest.fixture
def dino(web: LoopbackWeb) -> str:
    """The commit of a repository with everything that one can have."""
    return web.add_repository(
        "facebookresearch/dinov2", CODE, tags=["v1"], annotated_tags=["v2"], links=LINKS
    )


def refs_url(url: str) -> str:
    return f"{url}.git/info/refs?service=git-upload-pack"


def unzip(response: httpx2.Response) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(response.content))


def test_a_plain_file(web: LoopbackWeb, client: httpx2.Client) -> None:
    web.add(FILE, WEIGHTS)
    response = client.get(web.at(FILE))
    assert (response.status_code, response.content) == (200, WEIGHTS)
    assert response.headers["Content-Length"] == "256000"
    assert response.headers["Accept-Ranges"] == "bytes"
    assert re.fullmatch(r'"[0-9a-f]+"', response.headers["ETag"])

    head = client.head(web.at(FILE))
    assert (head.status_code, head.content) == (200, b"")
    for name in ("Content-Length", "ETag", "Accept-Ranges"):
        assert head.headers[name] == response.headers[name]

    web.add(FILE, b"another")
    assert client.get(web.at(FILE)).headers["ETag"] != response.headers["ETag"]
    assert client.get(web.at(FILE) + ".sha256").status_code == 404


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "body"),
    [
        ("bytes=5-9", 206, "bytes 5-9/256000", WEIGHTS[5:10]),
        ("bytes=255990-", 206, "bytes 255990-255999/256000", WEIGHTS[-10:]),
        ("bytes=255990-999999", 206, "bytes 255990-255999/256000", WEIGHTS[-10:]),
        ("bytes=-3", 206, "bytes 255997-255999/256000", WEIGHTS[-3:]),
        ("bytes=256000-", 416, "bytes */256000", b"Range Not Satisfiable"),
    ],
)
def test_ranges(
    web: LoopbackWeb,
    client: httpx2.Client,
    asked: str,
    status: int,
    content_range: str,
    body: bytes,
) -> None:
    web.add(FILE, WEIGHTS)
    response = client.get(web.at(FILE), headers={"Range": asked})
    assert (response.status_code, response.content) == (status, body)
    assert response.headers["Content-Range"] == content_range


@pytest.mark.parametrize("etag", [True, False])
def test_a_part_of_what_has_changed_is_not_sent(
    web: LoopbackWeb, client: httpx2.Client, etag: bool
) -> None:
    web.add(FILE, WEIGHTS, etag=etag)
    known = client.head(web.at(FILE)).headers.get("ETag")
    assert (known is not None) == etag
    part = {"Range": "bytes=5-"}
    assert client.get(web.at(FILE), headers=part).content == WEIGHTS[5:]
    if known:
        assert client.get(web.at(FILE), headers=part | {"If-Range": known}).status_code == 206
    response = client.get(web.at(FILE), headers=part | {"If-Range": '"old"'})
    assert (response.status_code, response.content) == (200, WEIGHTS)


@pytest.mark.parametrize("content", [WEIGHTS, b""])
def test_a_file_without_a_length(web: LoopbackWeb, client: httpx2.Client, content: bytes) -> None:
    web.add(FILE, content, length=False, etag=False)
    response = client.get(web.at(FILE), headers={"Range": "bytes=5-"})
    assert (response.status_code, response.content) == (200, content)
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert not {"content-length", "etag", "accept-ranges"} & set(response.headers)
    assert client.head(web.at(FILE)).headers["Transfer-Encoding"] == "chunked"


def test_content_may_be_a_file(web: LoopbackWeb, client: httpx2.Client, tmp_path: Path) -> None:
    path = tmp_path / "big.bin"
    path.write_bytes(WEIGHTS)
    web.add(FILE, path)
    web.add_release("deepinsight/insightface", "v0.7", "buffalo_l.zip", path)
    web.add_repository("acme/code", {"big.bin": path})
    zipball = web.at("https://github.com/acme/code/zipball/main")
    assert client.get(web.at(FILE)).content == WEIGHTS
    assert client.get(web.at(BUFFALO), follow_redirects=True).content == WEIGHTS
    with unzip(client.get(zipball, follow_redirects=True)) as archive:
        assert archive.read(archive.namelist()[1]) == WEIGHTS


def test_addresses_with_odd_signs(web: LoopbackWeb, client: httpx2.Client) -> None:
    web.add("https://zenodo.org/a%20b/déjà.pt", b"any query")
    web.add("https://zenodo.org/get?id=1", b"one")
    web.add("https://zenodo.org/get?id=2", b"two")
    for path, body in {
        "a b/d%C3%A9j%C3%A0.pt": b"any query",
        "a%20b/déjà.pt?download=1": b"any query",
        "get?id=1": b"one",
        "get?id=2": b"two",
        "get": b"Not Found",
    }.items():
        assert client.get(f"{web.url}/zenodo.org/{path}").content == body


def test_each_host_has_a_mirror(web: LoopbackWeb, client: httpx2.Client) -> None:
    urls = [f"https://{host}/file.bin" for host in (*KNOWN_HOSTS, "example.org", "a.org:8443")]
    for url in urls:
        web.add(url, url.encode())
        web.add(f"{url}2", b"")
    mirrors = dict(mirror.split("=") for mirror in web.mirrors)
    assert len(mirrors) == len(web.mirrors) == len(urls)
    assert mirrors["https://github.com/"] == f"{web.url}/github.com/"
    for url in urls:
        original = url.removesuffix("file.bin")
        assert client.get(url.replace(original, mirrors[original])).content == url.encode()


def test_requests_are_kept(web: LoopbackWeb, client: httpx2.Client) -> None:
    client.head(web.at(FILE) + "?a=%20", headers={"X-Name": "Value"})
    (request,) = web.requests
    assert (request.server, request.method) == ("hub", "HEAD")
    assert request.path == "/download.pytorch.org/models/x.pth?a=%20"
    assert request.headers["x-name"] == "Value"


def test_what_git_is_told_first(web: LoopbackWeb, client: httpx2.Client, dino: str) -> None:
    response = client.get(web.at(refs_url(DINO)))
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/x-git-upload-pack-advertisement"
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert not {"content-length", "etag"} & set(response.headers)

    head, _, refs = response.content.partition(b"\n00000")
    assert head == b"001e# service=git-upload-pack"
    first, *rest = refs.decode().splitlines()
    assert re.match(rf"[0-9a-f]{{3}}{dino} HEAD\0(.* )?symref=HEAD:refs/heads/main ", first)
    assert int(first[:3], 16) == len(first) + len("0\n")
    assert [line[44:] for line in rest] == [
        " refs/heads/main",
        " refs/tags/v1",
        " refs/tags/v2",
        " refs/tags/v2^{}",
        "",
    ]
    main, v1, v2, peeled, end = rest
    assert main[:44] == f"003d{dino}"
    assert (v1[4:44], peeled[4:44], end) == (dino, dino, "0000")
    assert v2[4:44] != dino


def test_git_lists_the_refs(web: LoopbackWeb, git: Git, dino: str) -> None:
    web.add_repository("facebookresearch/dinov2", {"new.py": b""}, branch="next/one")
    process = git("ls-remote", "--symref", web.at(f"{DINO}.git"))
    assert process.returncode == 0, process.stderr
    listed = [line.split("\t") for line in process.stdout.decode().splitlines()]
    assert listed[0] == ["ref: refs/heads/main", "HEAD"]
    refs = {name: target for target, name in listed[1:]}
    assert list(refs) == [
        "HEAD",
        "refs/heads/main",
        "refs/heads/next/one",
        "refs/tags/v1",
        "refs/tags/v2",
        "refs/tags/v2^{}",
    ]
    others = [refs.pop("refs/heads/next/one"), refs.pop("refs/tags/v2")]
    assert set(refs.values()) == {dino}
    assert len({dino, *others}) == 3


def test_git_is_asked_who_it_is(web: LoopbackWeb, client: httpx2.Client, git: Git) -> None:
    response = client.get(web.at(refs_url("https://github.com/acme/private")))
    assert (response.status_code, response.text) == (401, "Repository not found.")
    assert response.headers["WWW-Authenticate"].startswith("Basic ")
    process = git("ls-remote", web.at("https://github.com/acme/private.git"))
    assert process.returncode == 128
    assert b"could not read Username" in process.stderr


def test_branches_have_pages(web: LoopbackWeb, client: httpx2.Client, dino: str) -> None:
    web.add_repository("facebookresearch/dinov2", {}, branch="next/one")
    found = {
        name: client.get(web.at(f"{DINO}/tree/{name}/")).status_code
        for name in ("main", "next/one", "next%2Fone", "master", "v1")
    }
    assert found == {"main": 200, "next/one": 200, "next%2Fone": 200, "master": 404, "v1": 404}
    assert client.get(web.at(f"{DINO}/tree/main")).headers["Content-Type"].startswith("text/html")
    assert client.get(web.at("https://github.com/acme/none/tree/main/")).status_code == 404


def test_a_code_archive(web: LoopbackWeb, client: httpx2.Client, dino: str) -> None:
    response = client.get(web.at(f"{DINO}/zipball/main"))
    assert response.status_code == 302
    location = response.headers["Location"]
    assert location.startswith(f"{web.other_url}/codeload.github.com/facebookresearch/dinov2/")

    response = client.get(location, headers={"Range": "bytes=5-"})
    assert response.status_code == 200
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert not {"content-length", "accept-ranges"} & set(response.headers)
    assert re.fullmatch(r'W/"[0-9a-f]+"', response.headers["ETag"])
    assert client.head(location).headers["ETag"] == response.headers["ETag"]

    top = f"facebookresearch-dinov2-{dino[:7]}/"
    with unzip(response) as archive:
        assert archive.comment == dino.encode()
        assert archive.namelist()[0] == top
        entries = {name.removeprefix(top): archive.read(name) for name in archive.namelist()}
        folders = {name.removeprefix(top) for name in archive.namelist() if name.endswith("/")}
    links = {path: target.encode() for path, target in LINKS.items()}
    assert folders == {"", "dinov2/", "dinov2/hub/"}
    assert entries == {**CODE, **links, **dict.fromkeys(folders, b"")}


def test_an_archive_is_like_gits(
    web: LoopbackWeb, client: httpx2.Client, git: Git, dino: str, tmp_path: Path
) -> None:
    for path, content in CODE.items():
        (tmp_path / "code" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "code" / path).write_bytes(content)
    for path, target in LINKS.items():
        (tmp_path / "code" / path).symlink_to(target)
    top = f"facebookresearch-dinov2-{dino[:7]}/"
    for command in (
        ["init", "--quiet"],
        ["add", "."],
        ["commit", "--quiet", "--message", "all"],
        ["archive", "--format=zip", f"--prefix={top}", "--output=real.zip", "HEAD"],
    ):
        process = git("-C", "code", *command)
        assert process.returncode == 0, process.stderr

    def facts(archive: zipfile.ZipFile) -> list[tuple[object, ...]]:
        return [
            (entry.filename, entry.CRC, entry.file_size, entry.create_system, entry.external_attr)
            for entry in archive.infolist()
        ]

    response = client.get(web.at(f"{DINO}/zipball/main"), follow_redirects=True)
    with zipfile.ZipFile(tmp_path / "code/real.zip") as real, unzip(response) as imitation:
        assert facts(imitation) == facts(real)
        assert len(imitation.comment) == len(real.comment) == 40


def test_refs_of_archives(web: LoopbackWeb, client: httpx2.Client, dino: str) -> None:
    slashed = web.add_repository("facebookresearch/dinov2", {"a": b""}, branch="next/one")
    for ref, commit in {
        "main": dino,
        "refs/heads/main": dino,
        "HEAD": dino,
        "v1": dino,
        "v2": dino,
        "refs/tags/v2": dino,
        dino: dino,
        dino[:7]: dino,
        dino[:39]: dino,
        slashed[:10]: slashed,
        "next/one": slashed,
        "next%2Fone": slashed,
    }.items():
        for path in (f"zipball/{ref}", f"archive/{ref}.zip"):
            with unzip(client.get(web.at(f"{DINO}/{path}"), follow_redirects=True)) as archive:
                assert archive.comment == commit.encode(), path
    for ref in ("master", "next", "v3", dino[:6], "0" * 40, f"{dino}0"):
        for path in (f"zipball/{ref}", f"archive/{ref}.zip"):
            assert client.get(web.at(f"{DINO}/{path}")).status_code == 404, path
        there = web.at("https://codeload.github.com/facebookresearch/dinov2/legacy.zip/")
        assert client.get(there + ref).status_code == 404
    assert client.get(web.at("https://github.com/acme/none/zipball/main")).status_code == 404


def test_a_branch_goes_on(web: LoopbackWeb, client: httpx2.Client, git: Git, dino: str) -> None:
    head = web.add_repository("facebookresearch/dinov2", {"hubconf.py": b"new"}, tags=["v2"])
    refs = git("ls-remote", web.at(DINO)).stdout.decode()
    targets = {name: target for target, name in map(str.split, refs.splitlines())}
    assert targets == {
        "HEAD": head,
        "refs/heads/main": head,
        "refs/tags/v1": dino,
        "refs/tags/v2": head,
    }
    with unzip(client.get(web.at(f"{DINO}/zipball/{dino}"), follow_redirects=True)) as archive:
        assert len(archive.namelist()) > 2


def test_commits_are_the_same_every_time(dino: str) -> None:
    with LoopbackWeb() as other:
        reversed_code = dict(reversed(CODE.items()))
        name = "facebookresearch/dinov2"
        assert other.add_repository(name, reversed_code, links=LINKS) == dino
        commits = {
            other.add_repository(name, CODE),
            other.add_repository(name, CODE, links=LINKS, branch="next"),
            other.add_repository(name, {**CODE, "hubconf.py": b""}, links=LINKS),
            other.add_repository("acme/dinov2", CODE, links=LINKS),
        }
        assert len({dino, *commits}) == 5
        assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in commits)


def test_a_release(web: LoopbackWeb, client: httpx2.Client) -> None:
    web.add_release("deepinsight/insightface", "v0.7", "buffalo_l.zip", WEIGHTS)
    response = client.get(web.at(BUFFALO))
    assert response.status_code == 302
    link = response.headers["Location"]
    assert link.startswith(f"{web.other_url}/release-assets.githubusercontent.com/")

    response = client.get(link)
    assert (response.status_code, response.content) == (200, WEIGHTS)
    assert response.headers["Content-Length"] == "256000"
    assert response.headers["ETag"].startswith('"')
    part = client.get(link, headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, WEIGHTS[5:10])
    assert client.head(link).headers["ETag"] == part.headers["ETag"] == response.headers["ETag"]

    assert client.get(f"{link[:-1]}{'1' if link[-1] == '0' else '0'}").status_code == 403
    assert client.get(link.replace("sp=r", "sp=w")).status_code == 403
    for other in (BUFFALO.replace("_l", "_s"), BUFFALO.replace("v0.7", "v0.8")):
        assert client.get(web.at(other)).status_code == 404


def test_a_token_is_for_the_first_host_only(web: LoopbackWeb, client: httpx2.Client) -> None:
    web.add_release("deepinsight/insightface", "v0.7", "buffalo_l.zip", WEIGHTS)
    token = {"Authorization": "Bearer secret"}
    response = client.get(web.at(BUFFALO), headers=token, follow_redirects=True)
    assert response.content == WEIGHTS
    assert ["authorization" in request.headers for request in web.requests] == [True, False]
    assert client.get(response.url, headers=token).status_code == 400


def test_letter_case_does_not_matter(web: LoopbackWeb, client: httpx2.Client, dino: str) -> None:
    web.add_release("DeepInsight/InsightFace", "v0.7", "buffalo_l.zip", WEIGHTS)
    loud = DINO.replace("facebookresearch/dinov2", "FacebookResearch/DINOv2")
    assert client.get(web.at(refs_url(loud))).status_code == 200
    assert client.get(web.at(f"{loud}/tree/main/")).status_code == 200
    assert client.get(web.at(BUFFALO)).status_code == 302
    with unzip(client.get(web.at(f"{loud}/zipball/v1"), follow_redirects=True)) as archive:
        assert archive.namelist()[0] == f"facebookresearch-dinov2-{dino[:7]}/"
    for path in ("tree/Main/", "zipball/V1"):
        assert client.get(web.at(f"{DINO}/{path}")).status_code == 404


def test_faults(web: LoopbackWeb, client: httpx2.Client, dino: str) -> None:
    web.add(FILE, WEIGHTS)
    web.faults.append(Fault(r"x\.pth", 2, status=429, headers={"Retry-After": "3"}))
    assert client.get(web.at(FILE)).headers["Retry-After"] == "3"
    assert [client.get(web.at(FILE)).status_code for _ in range(2)] == [429, 200]

    web.faults.append(Fault(r"x\.pth", flip=70_000))
    damaged = client.get(web.at(FILE)).content
    assert [n for n, byte in enumerate(damaged) if byte != WEIGHTS[n]] == [70_000]

    zipball = web.at(f"{DINO}/zipball/main")
    whole = client.get(zipball, follow_redirects=True).content
    for host, url in {"pytorch": web.at(FILE), "codeload": zipball}.items():
        for cut in (0, 100):
            web.faults.append(Fault(host, cut=cut))
            with pytest.raises(httpx2.RemoteProtocolError):
                client.get(url, follow_redirects=True)
    assert client.get(zipball, follow_redirects=True).content == whole
    assert client.get(web.at(FILE)).content == WEIGHTS


def test_an_answer_may_stall(web: LoopbackWeb, dino: str) -> None:
    path = urlsplit(web.at(refs_url(DINO)))
    web.faults.append(Fault("info/refs", cut=10, stall=True))
    with closing(http.client.HTTPConnection(path.netloc, timeout=0.1)) as connection:
        connection.request("GET", f"{path.path}?{path.query}")
        with connection.getresponse() as response:
            assert response.read1(10) == b"001e# serv"
            with pytest.raises(TimeoutError):
                response.read1(1)


def test_a_connection_is_kept(web: LoopbackWeb, dino: str) -> None:
    web.add(FILE, WEIGHTS)
    web.add_release("deepinsight/insightface", "v0.7", "buffalo_l.zip", WEIGHTS)
    codeload = "https://codeload.github.com/facebookresearch/dinov2/legacy.zip/main"
    urls = [FILE, BUFFALO, refs_url(DINO), f"{DINO}/tree/main/", f"{DINO}/zipball/v1", codeload]
    address = urlsplit(web.url)
    with closing(http.client.HTTPConnection(address.netloc, timeout=10)) as connection:
        connection.connect()
        first_socket = connection.sock
        for url in (*urls, "https://github.com/nothing", "https://example.org/"):
            answers = []
            for method in ("HEAD", "GET"):
                connection.request(method, web.at(url).removeprefix(web.url))
                response = connection.getresponse()
                headers = {k: v for k, v in response.getheaders() if k != "Date"}
                answers.append((response.status, headers))
                response.read()
                assert connection.sock is first_socket
            assert answers[0] == answers[1]
