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
import hashlib
import json
import os
import re
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from loopback import (
    Answer,
    Content,
    Request,
    Server,
    Site,
    part,
    pieces,
    signature,
    text,
    tls_authority,
)

# Files of this size are LFS, and so are those with a suffix of the Hub's .gitattributes (or gguf).
LFS_SIZE = 10 * 1024 * 1024
LFS_SUFFIX = re.compile(
    r"\.(7z|arrow|bin|bz2|ckpt|ftz|gguf|gz|h5|joblib|mlmodel|model|msgpack|np[yz]|onnx|ot|parquet|pb"
    r"|pickle|pkl|pth?|rar|safetensors|tar|tflite|tgz|wasm|xz|zip|zst)"
)
GZIP_OVER = 1000
TREE_PAGE, EXPANDED_TREE_PAGE, COMMITS_PAGE = 1000, 50, 50

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
            return cls(content, size, _git_blob_id(size, pieces(content, 0, size)))
        digest = hashlib.sha256()
        for piece in pieces(content, 0, size):
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
_Listing = list[dict[str, Any]]


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
    _listings: dict[tuple[str, str, bool], _Listing] = field(default_factory=dict, repr=False)

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

    def listing(self, commit: str, folder: str, *, recursive: bool) -> _Listing:
        """The files and folders below a folder ("" is the top), in the order of their paths."""
        # Kept for the pages that follow: there may be sixty of them, and a commit never changes.
        key = (commit, folder, recursive)
        if key not in self._listings:
            self._listings[key] = _listing(self._trees[commit], folder, recursive=recursive)
        return self._listings[key]


class _Refusal(Exception):
    """Ends the making of an answer: this one is sent in its place."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


class LoopbackHub(Site):
    """The hub and, on a port of its own, its CDN. Use it as a context manager.

    Attributes that tests may set at any time:
      token               the one token that opens private and gated repositories
      faults              the faults still to come; the first that fits is taken
      cdn_honours_range   False: the CDN answers a Range with 200 and the whole file
      link_lifetime       seconds that a signed CDN link is good for; below 0, it is born expired
      url, cdn_url        what links and redirects name; the servers stay where they are

    With `tls`, both servers speak https; `ca_file` is what vouches for them.

    A mirror has the repositories of the hub it is a `mirror_of`, but a log and faults of its own,
    and no CDN. Like real ones it leads its clients past itself: the links to next pages, and the
    redirects of large files, name the original.
    """

    def __init__(
        self, port: int = 0, *, tls: bool = False, mirror_of: LoopbackHub | None = None
    ) -> None:
        super().__init__()
        self.token = "hf_loopback"
        self.cdn_honours_range = True
        self.link_lifetime = 3600.0
        self._repos: dict[tuple[str, str], Repo] = mirror_of._repos if mirror_of else {}
        self._cdn_files: dict[str, _File] = {}
        self._origin = mirror_of or self
        scheme = "https" if tls else "http"
        self._servers = [Server(self, "hub", port, tls=tls)]
        self.url = f"{scheme}://127.0.0.1:{self._servers[0].server_address[1]}"
        if mirror_of is None:
            self._servers.append(Server(self, "cdn", tls=tls))
            # Another name for the address: to huggingface_hub 1.x, another port is the same host.
            self.cdn_url = f"{scheme}://localhost:{self._servers[1].server_address[1]}"
        else:
            self.cdn_url = mirror_of.cdn_url

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

    @property
    def ca_file(self) -> Path:
        """The certificate, in PEM, that clients of hubs with TLS must trust: SSL_CERT_FILE."""
        return tls_authority().ca_file

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

    def answer(self, request: Request) -> Answer:
        """The answer to a request, before any damage to its body."""
        fault = self.fault_instead(request)
        if fault is not None:
            return fault
        try:
            return self._cdn(request) if request.server == "cdn" else self._hub(request)
        except _Refusal as refusal:
            return refusal.answer

    def _hub(self, request: Request) -> Answer:
        path = urlsplit(request.path).path
        if match := _RESOLVE_CACHE.fullmatch(path):
            return self._resolve(request, match, from_cache=True)
        if match := _API.fullmatch(path):
            return self._api(request, match)
        if match := _RESOLVE.fullmatch(path):
            return self._resolve(request, match, from_cache=False)
        return _error(404, "Not Found")

    def _api(self, request: Request, match: re.Match[str]) -> Answer:
        repo = self._repo(request, match)
        if unquote(match["name"]) != repo.name:
            return _moved(request, match, repo)
        query = dict(parse_qsl(urlsplit(request.path).query))
        if match["commits"]:
            commits = list(repo.history(unquote(match["commits"])))
            about = {"title": "Add files", "message": "", "date": _DATE}
            page = int(query.get("p", 0))
            start, stop = page * COMMITS_PAGE, (page + 1) * COMMITS_PAGE
            found: _Listing
            found = [{"id": commit, **about, "authors": []} for commit in commits[start:stop]]
            return self._page(request, found, {"p": page + 1} if stop < len(commits) else None)
        commit, tree = repo.tree(unquote(match["tree"] or match["revision"] or "main"))
        if not match["tree"]:
            return _json(_info(repo, commit, tree, with_blobs=_is_true(query.get("blobs"))))

        folder = unquote(match["path"] or "")
        entries = repo.listing(commit, folder, recursive=_is_true(query.get("recursive")))
        if folder and not entries:
            return _error(404, "Entry not found", "EntryNotFound", commit)
        expand = _is_true(query.get("expand"))
        start = int(query.get("cursor", 0))
        stop = start + (EXPANDED_TREE_PAGE if expand else TREE_PAGE)
        found = entries[start:stop]
        if expand:
            last_commit = {"id": commit, "title": "Add files", "date": _DATE}
            found = [{**entry, "lastCommit": last_commit} for entry in found]
        return self._page(request, found, {"cursor": stop} if stop < len(entries) else None)

    def _page(self, request: Request, found: _Listing, onward: dict[str, int] | None) -> Answer:
        """One page; `onward` is what the query of the next one has in addition, if there is one."""
        if onward is None:
            return _json(found)
        address = urlsplit(request.path)
        query = urlencode({**dict(parse_qsl(address.query)), **onward})
        # Absolute and under the hub's own name: a client behind a mirror is led past the mirror.
        link = f'<{self._origin.url}{address.path}?{query}>; rel="next"'
        return _json(found, headers={"Link": link})

    def _resolve(self, request: Request, match: re.Match[str], *, from_cache: bool) -> Answer:
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
        self._origin._cdn_files[cdn_name] = file
        query = {
            "response-content-disposition": f"inline; filename*=UTF-8''{Path(quoted_path).name}",
            "Expires": f"{time.time() + self.link_lifetime:.3f}",
        }
        link = f"/xet-bridge/{cdn_name}?{urlencode(query)}"
        return f"{self._origin.cdn_url}{link}&Signature={signature(link)}"

    def _cdn(self, request: Request) -> Answer:
        if "authorization" in request.headers:
            return text(400, "InvalidArgument: only one auth mechanism allowed")
        link, _, signed = request.path.partition("&Signature=")
        query = dict(parse_qsl(urlsplit(link).query))
        if signed != signature(link) or float(query["Expires"]) < time.time():
            return text(403, "AccessDenied: the link is wrong or has expired")
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


def _listing(tree: _Tree, folder: str, *, recursive: bool) -> _Listing:
    prefix = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for path, file in tree.items():
        for parent in map(str, PurePosixPath(path).parents):
            if parent in entries:
                break
            oid = hashlib.sha1(parent.encode()).hexdigest()
            entries[parent] = {"type": "directory", "oid": oid, "size": 0, "path": parent}
        entry = {"type": "file", "oid": file.blob_id, "size": file.size, "path": path}
        entries[path] = {**entry, **file.lfs("oid")}
    entries.pop(".", None)
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
) -> Answer:
    """A file's content: gzipped if it is text and the client takes that, else whole or a part."""
    headers = {**headers, "ETag": f'"{etag}"', "Content-Type": "application/octet-stream"}
    if may_gzip and _is_text(file):
        headers["Content-Type"] = "text/plain; charset=utf-8"
        if file.size > GZIP_OVER and "gzip" in request.headers.get("accept-encoding", ""):
            headers |= {"ETag": f'W/"{etag}"', "Content-Encoding": "gzip"}
            return Answer(200, headers, file.content, 0, file.size, gzipped=True)
    whole = Answer(200, headers, file.content, 0, file.size)
    return part(request, whole) if honours_range else whole


def _json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    headers = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
    return text(status, json.dumps(value), headers)


def _error(status: int, message: str, code: str = "", commit: str = "") -> Answer:
    headers = {"X-Error-Message": message, "X-Error-Code": code, "X-Repo-Commit": commit}
    present = {name: value for name, value in headers.items() if value}
    return _json({"error": message}, status, present)


def _redirect(status: int, location: str, headers: Mapping[str, str]) -> Answer:
    reason = {302: "Found", 307: "Temporary Redirect"}[status]
    return text(status, f"{reason}. Redirecting to {location}", {**headers, "Location": location})


def _moved(request: Request, match: re.Match[str], repo: Repo) -> Answer:
    """To the same path and query under the repository's own name."""
    before, after = request.path[: match.start("name")], request.path[match.end("name") :]
    return _redirect(307, f"{before}{quote(repo.name)}{after}", {})


def _is_true(value: str | None) -> bool:
    # huggingface_hub 0.x writes True, later ones true.
    return value in ("true", "True", "1")


def _is_text(file: _File) -> bool:
    content = b"".join(pieces(file.content, 0, file.size))
    with contextlib.suppress(UnicodeDecodeError):
        return "\0" not in content.decode()
    return False


def _git_blob_id(size: int, pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha1(b"blob %d\0" % size)
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


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
