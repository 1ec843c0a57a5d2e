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
import io
import re
import sys
import threading
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import quote, unquote, urlencode, urlsplit

from loopback import Answer, Content, Request, Server, Site, part, pieces, signature, text

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
                    for piece in pieces(content, 0, sys.maxsize):
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


class LoopbackWeb(Site):
    """One server that stands for all hosts. Use it as a context manager.

    `requests` are those that arrived, all with the server name "hub": the host is in the path.
    `faults` are those still to come; the first that fits is taken.
    """

    def __init__(self) -> None:
        super().__init__()
        self._prefixes = [f"https://{host}/" for host in KNOWN_HOSTS]
        self._files: dict[str, _File] = {}
        self._assets: dict[str, _File] = {}
        self._repositories: dict[str, _Repository] = {}
        self._releases: dict[tuple[str, str, str], str] = {}
        self._server = Server(self)
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

    def answer(self, request: Request) -> Answer:
        """The answer to a request, before any damage to its body."""
        fault = self.fault_instead(request)
        if fault is not None:
            return fault
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
        return text(404, "Not Found")

    def _github(self, path: str) -> Answer:
        if match := _REFS.fullmatch(path):
            return self._refs(match)
        path = path.partition("?")[0]
        if match := _RELEASE.fullmatch(path):
            return self._release(match)
        if match := _ARCHIVE.fullmatch(path):
            return self._archive(match)
        if match := _TREE.fullmatch(path):
            return self._tree(match)
        return text(404, "Not Found")

    def _refs(self, match: re.Match[str]) -> Answer:
        repository = self._repository(match)
        if repository is None:
            # It may be a private one: a stranger is not told what exists.
            return text(401, "Repository not found.", {"WWW-Authenticate": 'Basic realm="GitHub"'})
        headers = {
            "Content-Type": "application/x-git-upload-pack-advertisement",
            "Cache-Control": "no-cache, max-age=0, must-revalidate",
        }
        body = repository.advertisement()
        return Answer(200, headers, body, 0, len(body), chunked=True)

    def _tree(self, match: re.Match[str]) -> Answer:
        repository, branch = self._repository(match), unquote(match["branch"])
        if repository is None or f"refs/heads/{branch}" not in repository.refs:
            return text(404, "Not Found")
        headers = {"Content-Type": "text/html; charset=utf-8"}
        return text(200, f"<html><title>{repository.name} at {branch}</title></html>", headers)

    def _archive(self, match: re.Match[str]) -> Answer:
        repository = self._repository(match)
        ref = unquote(match["zipball"] or match["archive"])
        if repository is None or repository.commit(ref) is None:
            return text(404, "Not Found")
        kind = "legacy.zip" if match["zipball"] else "zip"
        return _found(f"{self.other_url}/{CODELOAD}/{repository.name}/{kind}/{quote(ref)}")

    def _codeload(self, request: Request, match: re.Match[str]) -> Answer:
        repository = self._repository(match)
        commit = repository.commit(unquote(match["ref"])) if repository else None
        if repository is None or commit is None:
            return text(404, "404: Not Found")
        top = f"{repository.name.replace('/', '-')}-{commit[:7]}"
        body = repository.trees[commit].zip(top, commit)
        headers = {
            "Content-Type": "application/zip",
            "Content-Disposition": f"attachment; filename={top}.zip",
        }
        etag = f'W/"{_sha256(body)}"'
        return _file(request, _File(body, etag, False, headers))

    def _release(self, match: re.Match[str]) -> Answer:
        name, tag, file = map(unquote, match.group("name", "tag", "file"))
        asset = self._releases.get((name.lower(), tag, file))
        if asset is None:
            return text(404, "Not Found")
        link = f"{asset}?{urlencode({'sp': 'r', 'rscd': f'attachment; filename={file}'})}"
        return _found(f"{self.other_url}/{link}&sig={signature(link)}")

    def _asset(self, request: Request) -> Answer:
        if "authorization" in request.headers:
            return text(400, "InvalidAuthenticationInfo: only one way to authenticate is allowed")
        match = _SIGNED.fullmatch(request.path.lstrip("/"))
        if match is None or match["signature"] != signature(match["link"]):
            return text(403, "AuthenticationFailed: the link is wrong")
        return _file(request, self._assets[match["asset"]])

    def _repository(self, match: re.Match[str]) -> _Repository | None:
        return self._repositories.get(unquote(match["name"]).lower())


def _file(request: Request, file: _File) -> Answer:
    """A file, or the part of it that is asked for."""
    headers = {"Content-Type": "application/octet-stream", **file.headers}
    if file.etag is not None:
        headers["ETag"] = file.etag
    if not file.has_length:
        return Answer(200, headers, file.content, 0, file.size, chunked=True)
    return part(request, Answer(200, headers, file.content, 0, file.size))


def _found(location: str) -> Answer:
    return text(302, "", {"Location": location})


def _packet(line: str) -> bytes:
    """A line as git sends it: its length, those four digits and the newline included, is first."""
    return b"%04x%s\n" % (len(line.encode()) + 5, line.encode())


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def _sha256(content: Content) -> str:
    digest = hashlib.sha256()
    for piece in pieces(content, 0, sys.maxsize):
        digest.update(piece)
    return digest.hexdigest()
