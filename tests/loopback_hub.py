"""A Hugging Face Hub on 127.0.0.1, with the habits of the real one that clients stumble over.

    with LoopbackHub() as hub:
        repo = hub.add("acme/tiny", {"config.json": b"{}", "model.safetensors": Path("big.bin")})
        hub.faults.append(Fault(r"model\\.safetensors", cut=1000))
        ...                                         # a client with HF_ENDPOINT=hub.url
        assert hub.requests[0].path == "/api/models/acme/tiny"

`python tests/loopback_hub.py FOLDER [--port N]` serves the folders below FOLDER as models.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import hmac
import io
import json
import os
import re
import signal
import socketserver
import stat
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

Content = bytes | Path
ServerName = Literal["hub", "cdn"]

# Files of this size are LFS, and so are those with a suffix of the Hub's .gitattributes (or gguf).
LFS_SIZE = 10 * 1024 * 1024
LFS_SUFFIX = re.compile(
    r"\.(7z|arrow|bin|bz2|ckpt|ftz|gguf|gz|h5|joblib|mlmodel|model|msgpack|np[yz]|onnx|ot|parquet|pb"
    r"|pickle|pkl|pth?|rar|safetensors|tar|tflite|tgz|wasm|xz|zip|zst)"
)
GZIP_OVER = 1000
TREE_PAGE, EXPANDED_TREE_PAGE = 1000, 50

# A name has one part or two; a revision is one segment: its own slashes must be percent-encoded.
_NAME = r"(?P<name>[^/]+(?:/[^/]+)?)"
_API = re.compile(
    rf"/api/(?P<kinds>models|datasets|spaces)/{_NAME}"
    r"(?:/revision/(?P<revision>[^/]+)|/commits/(?P<commits>[^/]+)"
    r"|/tree/(?P<tree>[^/]+)(?:/(?P<path>.+))?)?"
)
_RESOLVE = re.compile(
    rf"/(?:(?P<kinds>datasets|spaces)/)?{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)"
)
_RESOLVE_CACHE = re.compile(
    rf"/api/resolve-cache/(?P<kinds>models|datasets|spaces)/{_NAME}"
    r"/(?P<revision>[0-9a-f]{40})/(?P<path>.+)"
)
_DATE = "2024-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Request:
    """One request as it arrived: `path` is raw and has the query, header names are lower-case."""

    server: ServerName
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose raw path matches the regex `path`.

    `status`, with `headers`, replaces the whole answer. `cut` and `flip` damage the body of a good
    answer to a GET: it ends after `cut` bytes (the connection closes, or falls silent if `stall`),
    and the byte at `flip` is inverted; both count from the start of the body, before any gzip.
    The file's name is in the path on both servers; `server` and `method` narrow the choice.
    """

    path: str
    times: int = 1
    server: ServerName | None = None
    method: str | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    stall: bool = False
    flip: int | None = None

    def strikes(self, request: Request) -> bool:
        """Whether this fault is meant for the request, and not yet used up."""
        return (
            self.times > 0
            and self.server in (None, request.server)
            and self.method in (None, request.method)
            and re.search(self.path, request.path) is not None
        )

    def damaged(self, body: Iterable[bytes]) -> Iterator[bytes]:
        """The body with one byte inverted, and no longer than it may be."""
        position = 0
        for piece in map(bytearray, body):
            if self.flip is not None and 0 <= self.flip - position < len(piece):
                piece[self.flip - position] ^= 0xFF
            if self.cut is not None and position + len(piece) >= self.cut:
                yield bytes(piece[: self.cut - position])
                return
            yield bytes(piece)
            position += len(piece)


@dataclass(frozen=True)
class _File:
    """A file as a commit holds it; `sha256` and `pointer_size` are there for LFS files only."""

    content: Content
    size: int
    blob_id: str
    sha256: str | None = None
    pointer_size: int | None = None

    @classmethod
    def of(cls, path: str, content: Content) -> _File:
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        if size < LFS_SIZE and not LFS_SUFFIX.fullmatch(PurePosixPath(path).suffix.lower()):
            return cls(content, size, _git_blob_id(size, _pieces(content, 0, size)))
        digest = hashlib.sha256()
        for piece in _pieces(content, 0, size):
            digest.update(piece)
        sha256 = digest.hexdigest()
        # What git itself stores of an LFS file is this pointer, so the blob id is the pointer's.
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
        blob_id = _git_blob_id(len(pointer), [pointer.encode()])
        return cls(content, size, blob_id, sha256, len(pointer))

    def lfs(self, name_of_sha256: str) -> dict[str, Any]:
        """The `lfs` member of an API answer, if any; info and tree differ in the name of a key."""
        if self.sha256 is None:
            return {}
        lfs = {name_of_sha256: self.sha256, "size": self.size, "pointerSize": self.pointer_size}
        return {"lfs": lfs}


_Tree = dict[str, _File]


@dataclass
class Repo:
    """A repository: commits, and the branches, tags and pull requests that name them."""

    name: str
    kind: str
    license: str | None
    gated: bool
    private: bool
    disabled: bool
    _trees: dict[str, _Tree] = field(default_factory=dict, repr=False)
    _parents: dict[str, str] = field(default_factory=dict, repr=False)
    _refs: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def commit(self) -> str:
        """The head of main, 40 hex."""
        return self._refs["main"]

    def commit_files(self, files: Mapping[str, Content | None], *, branch: str = "main") -> str:
        """Put `files` over those of the branch (a new one starts at main); None removes one.

        Returns the new commit's hash: a function of the repository, its history and the contents.
        """
        parent = self._refs.get(branch) or self._refs.get("main", "")
        tree = dict(self._trees.get(parent, {}))
        for path, content in files.items():
            if content is None:
                del tree[path]
            else:
                tree[path] = _File.of(path, content)
        listing = (f"{file.blob_id} {path}" for path, file in sorted(tree.items()))
        history = "\n".join([self.kind, self.name, parent, *listing])
        commit = hashlib.sha1(history.encode()).hexdigest()
        self._trees[commit] = tree
        self._parents[commit] = parent
        self._refs[branch] = commit
        return commit

    def branch(self, name: str, commit: str | None = None) -> None:
        """Let a branch, or a pull request such as `refs/pr/1`, be at a commit (that of main)."""
        self._refs[name] = commit or self.commit

    def tag(self, name: str, commit: str | None = None) -> None:
        """Let a tag name a commit (that of main)."""
        self._refs[name] = commit or self.commit

    def history(self, revision: str) -> Iterator[str]:
        """The commits of a branch, the last one first."""
        commit, _ = self.tree(revision)
        while commit:
            yield commit
            commit = self._parents[commit]

    def tree(self, revision: str) -> tuple[str, _Tree]:
        """The commit a revision stands for, and its files; a short hash stands for nothing."""
        commit = revision if revision in self._trees else self._refs.get(revision)
        if commit is None:
            raise _Refusal(_error(404, f"Invalid rev id: {quote(revision)}", "RevisionNotFound"))
        return commit, self._trees[commit]


@dataclass(frozen=True)
class _Answer:
    """A response before it is written: bytes `start` to `stop` of `content`, plain or gzipped."""

    status: int
    headers: Mapping[str, str]
    content: Content
    start: int
    stop: int
    gzipped: bool = False


class _Refusal(Exception):
    """Ends the making of an answer: this one is sent in its place."""

    def __init__(self, answer: _Answer) -> None:
        self.answer = answer


class LoopbackHub:
    """The hub and, on a port of its own, its CDN. Use it as a context manager.

    Attributes that tests may set at any time:
      token               the one token that opens private and gated repositories
      faults              the faults still to come; the first that fits is taken
      cdn_honours_range   False: the CDN answers a Range with 200 and the whole file
      link_lifetime       seconds that a signed CDN link is good for; below 0, it is born expired
      url, cdn_url        what links and redirects name; the servers stay where they are
    """

    def __init__(self, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.token = "hf_loopback"
        self.faults: list[Fault] = []
        self.cdn_honours_range = True
        self.link_lifetime = 3600.0
        self.closed = threading.Event()
        self._repos: dict[tuple[str, str], Repo] = {}
        self._cdn_files: dict[str, _File] = {}
        self._lock = threading.Lock()
        self._servers = _Server(self, "hub", port), _Server(self, "cdn", 0)
        hub_port, cdn_port = (server.server_address[1] for server in self._servers)
        # Another name for the same address: to huggingface_hub 1.x, another port is the same host.
        self.url, self.cdn_url = f"http://127.0.0.1:{hub_port}", f"http://localhost:{cdn_port}"

    def __enter__(self) -> LoopbackHub:
        for server in self._servers:
            # The argument is how long, in seconds, leaving the context may take.
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def add(
        self,
        name: str,
        files: Mapping[str, Content],
        *,
        kind: str = "model",
        license: str | None = None,
        aliases: Sequence[str] = (),
        gated: bool = False,
        private: bool = False,
        disabled: bool = False,
    ) -> Repo:
        """Create a repository with `files` as its first commit; `aliases` are the names it had."""
        repo = Repo(name, kind, license, gated, private, disabled)
        repo.commit_files(files)
        for known_as in (name, *aliases):
            self._repos[kind, known_as.lower()] = repo
        return repo

    def answer(self, request: Request) -> _Answer:
        """The answer to a request, before any damage to its body."""
        self.requests.append(request)
        fault = self.take_fault(request, in_body=False)
        if fault is not None and fault.status is not None:
            return _text(fault.status, "A fault was asked for.", fault.headers)
        try:
            return self._cdn(request) if request.server == "cdn" else self._hub(request)
        except _Refusal as refusal:
            return refusal.answer

    def take_fault(self, request: Request, *, in_body: bool) -> Fault | None:
        """Use up, once, the first fault that strikes the request, in the body or instead of it."""
        with self._lock:
            for fault in self.faults:
                if (fault.status is None) == in_body and fault.strikes(request):
                    fault.times -= 1
                    return fault
        return None

    def _hub(self, request: Request) -> _Answer:
        path = urlsplit(request.path).path
        if match := _RESOLVE_CACHE.fullmatch(path):
            return self._resolve(request, match, from_cache=True)
        if match := _API.fullmatch(path):
            return self._api(request, match)
        if match := _RESOLVE.fullmatch(path):
            return self._resolve(request, match, from_cache=False)
        return _error(404, "Not Found")

    def _api(self, request: Request, match: re.Match[str]) -> _Answer:
        repo = self._repo(request, match)
        if unquote(match["name"]) != repo.name:
            return _moved(request, match, repo)
        if match["commits"]:
            about = {"title": "Add files", "message": "", "date": _DATE, "authors": []}
            commits = repo.history(unquote(match["commits"]))
            return _json([{"id": commit, **about} for commit in commits])
        commit, tree = repo.tree(unquote(match["tree"] or match["revision"] or "main"))
        query = dict(parse_qsl(urlsplit(request.path).query))
        if not match["tree"]:
            return _json(_info(repo, commit, tree, with_blobs=_is_true(query.get("blobs"))))

        folder = unquote(match["path"] or "")
        entries = _listing(tree, folder, recursive=_is_true(query.get("recursive")))
        if folder and not entries:
            return _error(404, "Entry not found", "EntryNotFound", commit)
        expand = _is_true(query.get("expand"))
        start = int(query.get("cursor", 0))
        stop = start + (EXPANDED_TREE_PAGE if expand else TREE_PAGE)
        if expand:
            last_commit = {"id": commit, "title": "Add files", "date": _DATE}
            entries = [{**entry, "lastCommit": last_commit} for entry in entries]
        if stop >= len(entries):
            return _json(entries[start:])
        # Absolute and under the hub's own name: a client behind a mirror is led past the mirror.
        page = f"{self.url}{urlsplit(request.path).path}?{urlencode({**query, 'cursor': stop})}"
        return _json(entries[start:stop], headers={"Link": f'<{page}>; rel="next"'})

    def _resolve(self, request: Request, match: re.Match[str], *, from_cache: bool) -> _Answer:
        repo = self._repo(request, match)
        name = unquote(match["name"])
        if name != repo.name and "/" in name:
            return _moved(request, match, repo)
        if repo.gated and not self._has_access(request):
            status = 403 if "authorization" in request.headers else 401
            return _error(status, f"Access to {repo.name} is restricted.", "GatedRepo")
        commit, tree = repo.tree(unquote(match["revision"]))
        file = tree.get(unquote(match["path"]))
        if file is None:
            return _error(404, "Entry not found", "EntryNotFound", commit)
        headers = {"X-Repo-Commit": commit}
        if file.sha256 is not None:
            headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
            return _redirect(302, self._signed_link(file, match["path"]), headers)
        if from_cache or repo.gated or repo.private:
            return _file(request, file, file.blob_id, headers, may_gzip=True)
        asked = quote(urlsplit(request.path).path, safe="")
        location = (
            f"/api/resolve-cache/{repo.kind}s/{quote(repo.name)}/{commit}/{match['path']}"
            f"?{asked}=&etag=%22{file.blob_id}%22"
        )
        return _redirect(307, location, {**headers, "ETag": f'"{file.blob_id}"'})

    def _signed_link(self, file: _File, quoted_path: str) -> str:
        # The CDN has names of its own: as long as a sha256, but not that of the content.
        cdn_name = hashlib.sha256(f"cdn {file.sha256}".encode()).hexdigest()
        self._cdn_files[cdn_name] = file
        query = {
            "response-content-disposition": f"inline; filename*=UTF-8''{Path(quoted_path).name}",
            "Expires": f"{time.time() + self.link_lifetime:.3f}",
        }
        link = f"/xet-bridge/{cdn_name}?{urlencode(query)}"
        return f"{self.cdn_url}{link}&Signature={_signature(link)}"

    def _cdn(self, request: Request) -> _Answer:
        if "authorization" in request.headers:
            return _text(400, "InvalidArgument: only one auth mechanism allowed")
        link, _, signature = request.path.partition("&Signature=")
        query = dict(parse_qsl(urlsplit(link).query))
        if signature != _signature(link) or float(query["Expires"]) < time.time():
            return _text(403, "AccessDenied: the link is wrong or has expired")
        cdn_name = urlsplit(link).path.rpartition("/")[2]
        headers = {"Content-Disposition": query["response-content-disposition"]}
        file, ranges = self._cdn_files[cdn_name], self.cdn_honours_range
        return _file(request, file, cdn_name, headers, honours_range=ranges)

    def _repo(self, request: Request, match: re.Match[str]) -> Repo:
        kind = (match["kinds"] or "models").removesuffix("s")
        repo = self._repos.get((kind, unquote(match["name"]).lower()))
        if repo is None or (repo.private and not self._has_access(request)):
            if "authorization" in request.headers:
                raise _Refusal(_error(404, "Repository not found", "RepoNotFound"))
            # No error code here: a stranger is not told what exists.
            raise _Refusal(_error(401, "Invalid username or password."))
        if repo.disabled:
            raise _Refusal(_error(403, "Access to this resource is disabled."))
        return repo

    def _has_access(self, request: Request) -> bool:
        return request.headers.get("authorization") == f"Bearer {self.token}"


def _info(repo: Repo, commit: str, tree: _Tree, *, with_blobs: bool) -> dict[str, Any]:
    siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(tree)]
    if with_blobs:
        for sibling in siblings:
            file = tree[sibling["rfilename"]]
            sibling |= {"blobId": file.blob_id, "size": file.size, **file.lfs("sha256")}
    card = {} if repo.license is None else {"cardData": {"license": repo.license}}
    return {
        "id": repo.name,
        "sha": commit,
        "createdAt": _DATE,
        "lastModified": _DATE,
        "private": repo.private,
        "gated": "manual" if repo.gated else False,
        "disabled": repo.disabled,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        **card,
        "siblings": siblings,
    }


def _listing(tree: _Tree, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    """The files and folders below a folder ("" is the top), in the order of their paths."""
    prefix = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for path, file in tree.items():
        for parent in map(str, PurePosixPath(path).parents):
            oid = hashlib.sha1(parent.encode()).hexdigest()
            entries[parent] = {"type": "directory", "oid": oid, "size": 0, "path": parent}
        entry = {"type": "file", "oid": file.blob_id, "size": file.size, "path": path}
        entries[path] = {**entry, **file.lfs("oid")}
    del entries["."]
    below = sorted(path for path in entries if path.startswith(prefix))
    return [entries[path] for path in below if recursive or "/" not in path[len(prefix) :]]


def _file(
    request: Request,
    file: _File,
    etag: str,
    headers: Mapping[str, str],
    *,
    may_gzip: bool = False,
    honours_range: bool = True,
) -> _Answer:
    """A file's content: gzipped if it is text and the client takes that, else whole or a part."""
    headers = {**headers, "ETag": f'"{etag}"', "Content-Type": "application/octet-stream"}
    if may_gzip and _is_text(file):
        headers["Content-Type"] = "text/plain; charset=utf-8"
        if file.size > GZIP_OVER and "gzip" in request.headers.get("accept-encoding", ""):
            headers |= {"ETag": f'W/"{etag}"', "Content-Encoding": "gzip"}
            return _Answer(200, headers, file.content, 0, file.size, gzipped=True)
    whole = _Answer(200, headers, file.content, 0, file.size)
    if not honours_range:
        return whole
    headers["Accept-Ranges"] = "bytes"
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    changed = request.headers.get("if-range", headers["ETag"]) != headers["ETag"]
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


def _json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> _Answer:
    headers = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
    return _text(status, json.dumps(value), headers)


def _error(status: int, message: str, code: str = "", commit: str = "") -> _Answer:
    headers = {"X-Error-Message": message, "X-Error-Code": code, "X-Repo-Commit": commit}
    present = {name: value for name, value in headers.items() if value}
    return _json({"error": message}, status, present)


def _redirect(status: int, location: str, headers: Mapping[str, str]) -> _Answer:
    reason = {302: "Found", 307: "Temporary Redirect"}[status]
    return _text(status, f"{reason}. Redirecting to {location}", {**headers, "Location": location})


def _moved(request: Request, match: re.Match[str], repo: Repo) -> _Answer:
    """To the same path and query under the repository's own name."""
    before, after = request.path[: match.start("name")], request.path[match.end("name") :]
    return _redirect(307, f"{before}{quote(repo.name)}{after}", {})


def _signature(link: str) -> str:
    return hmac.new(b"loopback", link.encode(), "sha256").hexdigest()


def _is_true(value: str | None) -> bool:
    # huggingface_hub 0.x writes True, later ones true.
    return value in ("true", "True", "1")


def _is_text(file: _File) -> bool:
    content = b"".join(_pieces(file.content, 0, file.size))
    with contextlib.suppress(UnicodeDecodeError):
        return "\0" not in content.decode()
    return False


def _git_blob_id(size: int, pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha1(b"blob %d\0" % size)
    for piece in pieces:
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
    """Reads the requests of one connection and writes the hub's answers, faults included."""

    protocol_version = "HTTP/1.1"
    # Head and body are two writes; Nagle's algorithm would hold the second back for 40 ms.
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        hub = self.server.hub
        if hub.closed.is_set():
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.server.name, self.command, self.path, headers)
        answer = hub.answer(request)
        body = _pieces(answer.content, answer.start, answer.stop)
        fault = None
        if request.method == "GET" and answer.status in (200, 206):
            fault = hub.take_fault(request, in_body=True)
        if fault is not None:
            body = fault.damaged(body)

        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.gzipped:
            self.send_header("Transfer-Encoding", "chunked")
            body = iter([gzip.compress(b"".join(body))])
        else:
            self.send_header("Content-Length", str(answer.stop - answer.start))
        self.end_headers()
        if request.method == "HEAD":
            return
        for piece in body:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if answer.gzipped else piece)
        if fault is not None and fault.cut is not None:
            self.close_connection = True
            if fault.stall:
                hub.closed.wait()
        elif answer.gzipped:
            self.wfile.write(b"0\r\n\r\n")

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: `requests` is the log."""


class _Server(ThreadingHTTPServer):
    # A client opens eight connections at once, and there may be several clients.
    request_queue_size = 128

    def __init__(self, hub: LoopbackHub, name: ServerName, port: int) -> None:
        self.hub = hub
        self.name = name
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer would look up the name of the host, which may ask the network.
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that hangs up in the middle is no error of the hub.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def _models_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """Name and folder of each model: NAME for a folder with files of its own, else ORG/NAME."""
    for outer in sorted(path for path in folder.iterdir() if path.is_dir()):
        if any(path.is_file() for path in outer.iterdir()):
            yield outer.name, outer
        else:
            yield from ((f"{outer.name}/{path.name}", path) for path in sorted(outer.iterdir()))


def main() -> None:
    """Serve the models below a folder until SIGTERM, Ctrl-C, or the end of a pipe on stdin."""
    parser = argparse.ArgumentParser(description="A Hugging Face Hub on 127.0.0.1")
    parser.add_argument("folder", type=Path, help="holds ORG/NAME/… or NAME/…")
    parser.add_argument("--port", type=int, default=0, help="of the hub; by default any free one")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with LoopbackHub(arguments.port) as hub, contextlib.suppress(KeyboardInterrupt):
        for name, root in _models_in(arguments.folder):
            files = [path for path in root.rglob("*") if path.is_file()]
            hub.add(name, {path.relative_to(root).as_posix(): path for path in files})
        print(hub.url, flush=True)
        # Only a pipe is waited on: a shell gives its background jobs /dev/null, which ends at once.
        if stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
            sys.stdin.buffer.read()
        else:
            threading.Event().wait()


if __name__ == "__main__":
    main()
