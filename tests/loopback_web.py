"""The other hosts that models come from, on 127.0.0.1: GitHub, and plain file hosts.

    with LoopbackWeb() as web:
        web.add("https://download.pytorch.org/models/x.pth", b"weights")
        commit = web.add_repository("facebookresearch/dinov2", {"hubconf.py": b"..."}, tags=["v1"])
        web.add_release("deepinsight/insightface", "v0.7", "buffalo_l.zip", Path("big.zip"))
        web.faults.append(Fault(r"/models/x\\.pth", cut=1000))
        ...                                         # a client that tries each of web.mirrors
        assert web.requests[0].path == "/download.pytorch.org/models/x.pth"

What the real web has at https://HOST/PATH is here at http://127.0.0.1:PORT/HOST/PATH. A redirect
to another host leads to `localhost` instead: another name, so that a client takes it for one.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import re
import socketserver
import sys
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import quote, unquote, urlencode, urlsplit

from loopback_hub import Content, Fault, Request

GITHUB, CODELOAD = "github.com", "codeload.github.com"
ASSETS = "release-assets.githubusercontent.com"
KNOWN_HOSTS = (
    GITHUB,
    CODELOAD,
    ASSETS,
    "objects.githubusercontent.com",
    "raw.githubusercontent.com",
    "download.pytorch.org",
    "dl.fbaipublicfiles.com",
)

# A ref may have slashes of its own, as they are or percent-encoded.
_NAME = r"(?P<name>[^/]+/[^/]+?)"
_REFS = re.compile(rf"{_NAME}(?:\.git)?/info/refs\?service=git-upload-pack")
_TREE = re.compile(rf"{_NAME}/tree/(?P<branch>.+?)/?")
_ARCHIVE = re.compile(rf"{_NAME}/(?:zipball/(?P<zipball>.+)|archive/(?P<archive>.+)\.zip)")
_RELEASE = re.compile(rf"{_NAME}/releases/download/(?P<tag>.+)/(?P<file>[^/]+)")
_CODELOAD = re.compile(rf"{_NAME}/(?:legacy\.)?zip/(?P<ref>.+)")
_SIGNED = re.compile(r"(?P<link>(?P<asset>[^?]+)\?.*)&sig=(?P<signature>[0-9a-f]+)")

_CAPABILITIES = (
    "multi_ack thin-pack side-band side-band-64k ofs-delta shallow deepen-since deepen-not"
    " deepen-relative no-progress include-tag multi_ack_detailed allow-tip-sha1-in-want"
    " allow-reachable-sha1-in-want no-done symref=HEAD:refs/heads/{head} filter"
    " object-format=sha1 agent=git/loopback"
)
_MS_DOS_FOLDER = 0x10


@dataclass(frozen=True)
class _File:
    """What a host has under one address."""

    content: Content
    etag: str | None
    has_length: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


@dataclass(frozen=True)
class _Tree:
    """The files and symbolic links of a commit."""

    files: Mapping[str, Content]
    links: Mapping[str, str]

    def zip(self, top: str, comment: str) -> bytes:
        """An archive as `git archive` writes it, all below the folder `top`."""
        paths = [*self.files, *self.links]
        parents = {str(parent) for path in paths for parent in PurePosixPath(path).parents} - {"."}
        folders = ["", *(f"{parent}/" for parent in parents)]
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as writer:
            writer.comment = comment.encode()
            for path in sorted([*folders, *paths]):
                entry = zipfile.ZipInfo(f"{top}/{path}", (2024, 1, 1, 0, 0, 0))
                content: Content = b""
                system, attributes = 0, 0
                if path in self.files:
                    content = self.files[path]
                    entry.compress_type = zipfile.ZIP_DEFLATED
                elif path in self.links:
                    content = self.links[path].encode()
                    system, attributes = 3, 0o120777 << 16
                else:
                    attributes = _MS_DOS_FOLDER
                with writer.open(entry, "w") as member:
                    for piece in _pieces(content, 0, sys.maxsize):
                        member.write(piece)
                # Only now: zipfile has an opinion of its own on files without a mode.
                entry.create_system, entry.external_attr = system, attributes
        return archive.getvalue()


@dataclass
class _Repository:
    """A repository on GitHub. `head` is its default branch; refs have their full names."""

    name: str
    head: str
    refs: dict[str, str] = field(default_factory=dict)
    peeled: dict[str, str] = field(default_factory=dict)
    trees: dict[str, _Tree] = field(default_factory=dict)

    def commit(self, ref: str) -> str | None:
        """The commit that a branch, a tag, a commit or the first 7 or more of its digits means."""
        if ref == "HEAD":
            ref = self.head
        for name in (ref, f"refs/tags/{ref}", f"refs/heads/{ref}"):
            if name in self.refs:
                return self.peeled.get(name, self.refs[name])
        found = [commit for commit in self.trees if len(ref) >= 7 and commit.startswith(ref)]
        return found[0] if len(found) == 1 else None

    def advertisement(self) -> bytes:
        """What git's smart protocol, version 0, begins with."""
        head = self.refs[f"refs/heads/{self.head}"]
        lines = [f"{head} HEAD\0{_CAPABILITIES.format(head=self.head)}"]
        for name, target in sorted(self.refs.items()):
            lines.append(f"{target} {name}")
            if name in self.peeled:
                lines.append(f"{self.peeled[name]} {name}^{{}}")
        packets = [_packet("# service=git-upload-pack"), b"0000", *map(_packet, lines), b"0000"]
        return b"".join(packets)


@dataclass(frozen=True)
class _Answer:
    """A response before it is written: bytes `start` to `stop` of `content`."""

    status: int
    headers: Mapping[str, str]
    content: Content
    start: int
    stop: int
    chunked: bool = False


class LoopbackWeb:
    """One server that stands for all hosts. Use it as a context manager.

    `requests` are those that arrived, all with the server name "hub": the host is in the path.
    `faults` are those still to come; the first that fits is taken.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.closed = threading.Event()
        self._prefixes = [f"https://{host}/" for host in KNOWN_HOSTS]
        self._files: dict[str, _File] = {}
        self._assets: dict[str, _File] = {}
        self._repositories: dict[str, _Repository] = {}
        self._releases: dict[tuple[str, str, str], str] = {}
        self._lock = threading.Lock()
        self._server = _Server(self)
        port = self._server.server_address[1]
        self.url, self.other_url = f"http://127.0.0.1:{port}", f"http://localhost:{port}"

    def __enter__(self) -> LoopbackWeb:
        # The argument is how long, in seconds, leaving the context may take.
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def mirrors(self) -> list[str]:
        """FROM=TO for each host: the prefix of its URLs, and what to put in its place."""
        return [f"{prefix}={self.url}/{urlsplit(prefix).netloc}/" for prefix in self._prefixes]

    def at(self, url: str) -> str:
        """Where this server has what the real web has at `url`."""
        return f"{self.url}/{url.partition('://')[2]}"

    def add(self, url: str, content: Content, *, etag: bool = True, length: bool = True) -> None:
        """Put a file at a URL, any host's; one without a length is sent in chunks, never in parts.

        It goes before whatever else the host has there. A query that `url` lacks is ignored.
        """
        address = urlsplit(url)
        prefix = f"{address.scheme}://{address.netloc}/"
        if prefix not in self._prefixes:
            self._prefixes.append(prefix)
        tag = f'"{_sha256(content)}"' if etag else None
        self._files[unquote(url.partition("://")[2])] = _File(content, tag, length)

    def add_repository(
        self,
        name: str,
        files: Mapping[str, Content],
        *,
        branch: str = "main",
        tags: Sequence[str] = (),
        annotated_tags: Sequence[str] = (),
        links: Mapping[str, str] | None = None,
    ) -> str:
        """Let a branch be at a commit with just these files and links, and the tags name it.

        The first branch of a repository is its default one; later calls add branches or move them.
        Returns the commit's hash, a function of all names and contents and of the branch.
        """
        links = links or {}
        repository = self._repositories.setdefault(name.lower(), _Repository(name, branch))
        listing = [f"{_sha256(content)} {path}" for path, content in files.items()]
        listing += [f"{path} -> {target}" for path, target in links.items()]
        commit = _sha1("\n".join([name, branch, *sorted(listing)]))
        repository.trees[commit] = _Tree(dict(files), dict(links))
        repository.refs[f"refs/heads/{branch}"] = commit
        for tag in tags:
            repository.refs[f"refs/tags/{tag}"] = commit
            repository.peeled.pop(f"refs/tags/{tag}", None)
        for tag in annotated_tags:
            repository.refs[f"refs/tags/{tag}"] = _sha1(f"object {commit}\ntag {tag}")
            repository.peeled[f"refs/tags/{tag}"] = commit
        return commit

    def add_release(self, name: str, tag: str, file: str, content: Content) -> None:
        """Attach a file to a release; the repository itself need not be there."""
        asset = f"{ASSETS}/github-production-release-asset/{_sha1(f'{name} {tag} {file}')}"
        headers = {"Content-Disposition": f"attachment; filename={quote(file)}"}
        etag = f'"0x{_sha256(content)[:15].upper()}"'
        self._assets[asset] = _File(content, etag, headers=headers)
        self._releases[name.lower(), tag, file] = asset

    def answer(self, request: Request) -> _Answer:
        """The answer to a request, before any damage to its body."""
        self.requests.append(request)
        fault = self.take_fault(request, in_body=False)
        if fault is not None and fault.status is not None:
            return _text(fault.status, "A fault was asked for.", fault.headers)
        host, _, path = request.path.lstrip("/").partition("/")
        for address in (request.path, request.path.partition("?")[0]):
            if file := self._files.get(unquote(address).lstrip("/")):
                return _file(request, file)
        if host == GITHUB:
            return self._github(path)
        if host == CODELOAD and (match := _CODELOAD.fullmatch(path.partition("?")[0])):
            return self._codeload(request, match)
        if host == ASSETS:
            return self._asset(request)
        return _text(404, "Not Found")

    def take_fault(self, request: Request, *, in_body: bool) -> Fault | None:
        """Use up, once, the first fault that strikes the request, in the body or instead of it."""
        with self._lock:
            for fault in self.faults:
                if (fault.status is None) == in_body and fault.strikes(request):
                    fault.times -= 1
                    return fault
        return None

    def _github(self, path: str) -> _Answer:
        if match := _REFS.fullmatch(path):
            return self._refs(match)
        path = path.partition("?")[0]
        if match := _RELEASE.fullmatch(path):
            return self._release(match)
        if match := _ARCHIVE.fullmatch(path):
            return self._archive(match)
        if match := _TREE.fullmatch(path):
            return self._tree(match)
        return _text(404, "Not Found")

    def _refs(self, match: re.Match[str]) -> _Answer:
        repository = self._repository(match)
        if repository is None:
            # It may be a private one: a stranger is not told what exists.
            return _text(401, "Repository not found.", {"WWW-Authenticate": 'Basic realm="GitHub"'})
        headers = {
            "Content-Type": "application/x-git-upload-pack-advertisement",
            "Cache-Control": "no-cache, max-age=0, must-revalidate",
        }
        body = repository.advertisement()
        return _Answer(200, headers, body, 0, len(body), chunked=True)

    def _tree(self, match: re.Match[str]) -> _Answer:
        repository, branch = self._repository(match), unquote(match["branch"])
        if repository is None or f"refs/heads/{branch}" not in repository.refs:
            return _text(404, "Not Found")
        headers = {"Content-Type": "text/html; charset=utf-8"}
        return _text(200, f"<html><title>{repository.name} at {branch}</title></html>", headers)

    def _archive(self, match: re.Match[str]) -> _Answer:
        repository = self._repository(match)
        ref = unquote(match["zipball"] or match["archive"])
        if repository is None or repository.commit(ref) is None:
            return _text(404, "Not Found")
        kind = "legacy.zip" if match["zipball"] else "zip"
        return _found(f"{self.other_url}/{CODELOAD}/{repository.name}/{kind}/{quote(ref)}")

    def _codeload(self, request: Request, match: re.Match[str]) -> _Answer:
        repository = self._repository(match)
        commit = repository.commit(unquote(match["ref"])) if repository else None
        if repository is None or commit is None:
            return _text(404, "404: Not Found")
        top = f"{repository.name.replace('/', '-')}-{commit[:7]}"
        body = repository.trees[commit].zip(top, commit)
        headers = {
            "Content-Type": "application/zip",
            "Content-Disposition": f"attachment; filename={top}.zip",
        }
        etag = f'W/"{_sha256(body)}"'
        return _file(request, _File(body, etag, False, headers))

    def _release(self, match: re.Match[str]) -> _Answer:
        name, tag, file = map(unquote, match.group("name", "tag", "file"))
        asset = self._releases.get((name.lower(), tag, file))
        if asset is None:
            return _text(404, "Not Found")
        link = f"{asset}?{urlencode({'sp': 'r', 'rscd': f'attachment; filename={file}'})}"
        return _found(f"{self.other_url}/{link}&sig={_signature(link)}")

    def _asset(self, request: Request) -> _Answer:
        if "authorization" in request.headers:
            return _text(400, "InvalidAuthenticationInfo: only one way to authenticate is allowed")
        match = _SIGNED.fullmatch(request.path.lstrip("/"))
        if match is None or match["signature"] != _signature(match["link"]):
            return _text(403, "AuthenticationFailed: the link is wrong")
        return _file(request, self._assets[match["asset"]])

    def _repository(self, match: re.Match[str]) -> _Repository | None:
        return self._repositories.get(unquote(match["name"]).lower())


def _file(request: Request, file: _File) -> _Answer:
    """A file, or the part of it that is asked for."""
    headers = {"Content-Type": "application/octet-stream", **file.headers}
    if file.etag is not None:
        headers["ETag"] = file.etag
    if not file.has_length:
        return _Answer(200, headers, file.content, 0, file.size, chunked=True)
    headers["Accept-Ranges"] = "bytes"
    whole = _Answer(200, headers, file.content, 0, file.size)
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    changed = request.headers.get("if-range", file.etag) != file.etag
    if wanted is None or not any(wanted.groups()) or changed or request.method != "GET":
        return whole
    first, last = wanted.groups()
    start = int(first) if first else max(file.size - int(last), 0)
    stop = min(int(last) + 1, file.size) if first and last else file.size
    if start >= stop:
        return _text(416, "Range Not Satisfiable", {"Content-Range": f"bytes */{file.size}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size}"
    return _Answer(206, headers, file.content, start, stop)


def _text(status: int, text: str, headers: Mapping[str, str] | None = None) -> _Answer:
    body = text.encode()
    headers = {"Content-Type": "text/plain; charset=utf-8", **(headers or {})}
    return _Answer(status, headers, body, 0, len(body))


def _found(location: str) -> _Answer:
    return _text(302, "", {"Location": location})


def _packet(line: str) -> bytes:
    """A line as git sends it: its length, those four digits and the newline included, is first."""
    return b"%04x%s\n" % (len(line.encode()) + 5, line.encode())


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def _signature(link: str) -> str:
    return hmac.new(b"loopback", link.encode(), "sha256").hexdigest()


def _sha256(content: Content) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(content, 0, sys.maxsize):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(content: Content, start: int, stop: int) -> Iterator[bytes]:
    """The bytes from start to stop, a little at a time: a file may be larger than the memory."""
    stream: BinaryIO = io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")
    with stream:
        stream.seek(start)
        while piece := stream.read(min(64 * 1024, stop - start)):
            start += len(piece)
            yield piece


class _Handler(BaseHTTPRequestHandler):
    """Reads the requests of one connection and writes the answers, faults included."""

    protocol_version = "HTTP/1.1"
    # Head and body are two writes; Nagle's algorithm would hold the second back for 40 ms.
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        web = self.server.web
        if web.closed.is_set():
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request("hub", self.command, self.path, headers)
        answer = web.answer(request)
        body = _pieces(answer.content, answer.start, answer.stop)
        fault = None
        if request.method == "GET" and answer.status in (200, 206):
            fault = web.take_fault(request, in_body=True)
        if fault is not None:
            body = fault.damaged(body)

        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(answer.stop - answer.start))
        self.end_headers()
        if request.method == "HEAD":
            return
        # A chunk of no bytes would be the last one.
        for piece in filter(None, body):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if answer.chunked else piece)
        if fault is not None and fault.cut is not None:
            self.close_connection = True
            if fault.stall:
                web.closed.wait()
        elif answer.chunked:
            self.wfile.write(b"0\r\n\r\n")

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: `requests` is the log."""


class _Server(ThreadingHTTPServer):
    # A client opens eight connections at once, and there may be several clients.
    request_queue_size = 128

    def __init__(self, web: LoopbackWeb) -> None:
        self.web = web
        super().__init__(("127.0.0.1", 0), _Handler)

    def server_bind(self) -> None:
        # HTTPServer would look up the name of the host, which may ask the network.
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that hangs up in the middle is no error of the server.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)
