"""One Hugging Face Hub repository at one revision -> a pinned list of its files.

Metadata and content alike come through `web`, so that retries, mirrors, proxies and tokens have one
rule each; names, addresses and the token are huggingface_hub's. The answers are those of the Hub's
API, as huggingface_hub/hf_api.py reads them. Nothing is written to the user's own cache.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx2

from bundler.addresses import host_of, is_address, origin
from bundler.answers import LARGEST_FILE
from bundler.digest import SHA1, Digest
from bundler.errors import RequestError, SetupError, UnavailableError
from bundler.interior import leads_within
from bundler.names import plain_text
from bundler.refusals import Explain, unexplained
from bundler.remote import NoRepositoryError, RemoteFile, RemoteSnapshot, content_identity
from bundler.web import Web, WebFile

try:
    from huggingface_hub import constants, get_token, hf_hub_url
    from huggingface_hub.errors import HFValidationError
except ValueError as error:  # It reads its variables when it is imported.
    raise SetupError(f"huggingface_hub cannot read a variable that is set here: {error}") from None

LAYOUT = "hf-cache"
_SHORT_HASH = re.compile(r"[0-9a-f]{7,39}")
_NEXT_PAGE = re.compile(r"<(?P<link>[^<>]*?(?P<path>/api/[^<>]*))>\s*;\s*rel=\"?next\"?")
_LISTING_LIMIT = 50_000
"""Files from which on the Hub's description may be cut short, and the tree is asked instead."""
_LONGEST_ANSWER = 64 << 20
"""Bytes; the description of 50,000 files has some 15 million."""
_MOST_VALUES = 1 << 20
"""In an answer, by its commas and brackets: that description has 400,000 of them."""
_MOST_PAGES = 1_000
"""Of 1,000 files or 50 commits each."""


T = TypeVar("T")


def find_token() -> str | None:
    """The user's token, if there is one. Raises SetupError for what can be none."""
    token = get_token()
    if token is not None and not (token.isascii() and token.isprintable()):
        raise SetupError("the token has a character that no token has: copy it again")
    return token


class Hub:
    """The Hub at `endpoints`, each of which is asked when those before it do not help.

    `trusted`: the origins that get the user's token.
    """

    def __init__(self, web: Web, endpoints: Sequence[str], trusted: Collection[str] = ()) -> None:
        self._web = web
        self._endpoints = tuple(endpoints)
        self._trusted = frozenset(trusted)

    def snapshot(
        self,
        source: str,
        kind: str,
        name: str,
        revision: str | None,
        specs: tuple[str, ...] = (),
    ) -> RemoteSnapshot:
        """As `remote.Repositories` has it."""
        if constants.HF_HUB_OFFLINE:
            raise UnavailableError(
                "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set here, which forbids downloads: pack "
                "in a shell where neither is, or what this machine has already with --offline"
            )
        try:
            hf_hub_url(name, "-")
        except HFValidationError:
            raise RequestError(f"{name!r} is not a repository's name: write org/name") from None
        revision = revision or "main"
        info = self._info(kind, name, revision)
        files = self._files(kind, name, info)
        if info.gated and files:
            # A gated repository shows its files to all and gives them to some: ask for one.
            urls = self._urls(kind, name, info.commit_hash, files[0].path)
            self._web.heading(urls, partial(self._refusal, kind, name))
        return RemoteSnapshot(
            source=source,
            name=name,
            layout=LAYOUT,
            files=tuple(sorted(files, key=lambda file: file.path)),
            kind=kind,
            aliases=() if info.name == name else (info.name,),
            revision=revision,
            commit_hash=info.commit_hash,
            license=info.license,
            specs=specs,
            notes=_notes(name, info.name),
        )

    def _info(self, kind: str, name: str, revision: str) -> _Info:
        """The Hub's description of a repository, pinned to a commit."""

        def ask(revision: str) -> _Info:
            path = f"/api/{kind}s/{name}/revision/{quote(revision, safe='')}?blobs=true"
            urls = [f"{endpoint}{path}" for endpoint in self._endpoints]
            explain = partial(self._absence, kind, name, revision)
            return self._web.read(urls, _LONGEST_ANSWER, _Info.parse, explain)

        try:
            return ask(revision)
        except _NoRevisionError:
            # Libraries pin short hashes (transformers' pipelines do), which the Hub does not take.
            full = self._full_hash(kind, name, revision)
            if full is None:
                raise
            return ask(full)

    def _full_hash(self, kind: str, name: str, revision: str) -> str | None:
        """The one commit on the main branch that `revision` abbreviates."""
        if not _SHORT_HASH.fullmatch(revision):
            return None
        commits = self._pages(f"/api/{kind}s/{name}/commits/main", kind, name, _commit_of)
        found = {commit for commit in commits if commit.startswith(revision)}
        return found.pop() if len(found) == 1 else None

    def _files(self, kind: str, name: str, info: _Info) -> list[RemoteFile]:
        listed = info.files
        # Some mirrors leave the sizes out of the description.
        if listed is None or len(listed) >= _LISTING_LIMIT:
            path = f"/api/{kind}s/{name}/tree/{info.commit_hash}?recursive=true&expand=false"
            listed = [item for item in self._pages(path, kind, name, _Listed.of_tree) if item]
        return [self._file(kind, name, info.commit_hash, item) for item in listed]

    def _pages(
        self, path: str, kind: str, name: str, read: Callable[[dict[str, Any]], T]
    ) -> Iterator[T]:
        """What `read` makes of the entries of a list that the Hub gives page by page.

        A mirror passes on where the next page is in the original's words, under the name of the
        original. It is asked of whoever was asked for the first; only where none of these turns
        pages, as one in front of the Hub may not, of the original.
        """
        urls, seen = [f"{endpoint}{path}" for endpoint in self._endpoints], {path}
        explain: Explain = partial(self._absence, kind, name, "")
        while urls:
            if len(seen) > _MOST_PAGES:
                raise UnavailableError(f"the list of {name} does not end: is that a hub?")
            parse = partial(_page, seen=seen, read=read)
            page = self._web.read(urls, _LONGEST_ANSWER, parse, explain)
            yield from page.entries
            explain = unexplained  # It is there: what is said of a later page is of that alone.
            following = page.following
            seen.add(following)
            urls = [e + following for e in self._endpoints] if following else []
            if following and not all(leads_within(e, page.link) for e in self._endpoints):
                urls.append(page.link)

    def _file(self, kind: str, name: str, commit_hash: str, listed: _Listed) -> RemoteFile:
        urls = self._urls(kind, name, commit_hash, listed.path)
        digest, blob_id = listed.digest, listed.blob_id
        origin = WebFile(
            self._web,
            urls,
            identity=content_identity(digest, blob_id) or urls[-1],
            explain=partial(self._refusal, kind, name),
            size=listed.size,
            gives_parts=digest is not None,
        )
        return RemoteFile(
            path=listed.path,
            origin=origin,
            size=listed.size,
            digest=digest,
            git_sha1=None if digest else blob_id,
            etag=digest.hex if digest else blob_id,
        )

    def _urls(self, kind: str, name: str, commit_hash: str, path: str) -> list[str]:
        return [
            hf_hub_url(name, path, repo_type=kind, revision=commit_hash, endpoint=endpoint)
            for endpoint in self._endpoints
        ]

    def _is_endpoint(self, response: httpx2.Response) -> bool:
        return origin(str(response.url)) in map(origin, self._endpoints)

    def _refusal(self, kind: str, name: str, response: httpx2.Response) -> UnavailableError | None:
        """What a refused file means."""
        if not self._is_endpoint(response) or response.status_code not in (401, 403):
            return None
        return UnavailableError(
            f"{name} is gated or private: accept its terms at {_page_of(response, kind, name)}, "
            f"{self._advice(response)}"
        )

    def _absence(
        self, kind: str, name: str, revision: str, response: httpx2.Response
    ) -> UnavailableError | None:
        """What a refused answer of the API means, by the codes that the Hub gives."""
        if not self._is_endpoint(response):
            return None
        host, status = response.url.netloc.decode(), response.status_code
        code = response.headers.get("X-Error-Code")
        if code == "GatedRepo":
            return UnavailableError(
                f"{name} is gated: accept its terms at {_page_of(response, kind, name)}, "
                f"{self._advice(response)}"
            )
        if code == "RevisionNotFound":
            return _NoRevisionError(
                f"{name} has no branch, tag or commit {revision!r} on {host}: check the spelling"
            )
        if response.headers.get("X-Error-Message") == "Access to this resource is disabled.":
            return UnavailableError(f"{host} refuses access to {name}: the repository is disabled")
        if status in (401, 404):
            advice = self._advice(response).removeprefix("then ")
            return NoRepositoryError(
                f"{host} has no {kind} {name}: check the spelling; if it is private, {advice}"
            )
        if status == 403:
            return UnavailableError(f"{host}, or a proxy on the way, refuses access to {name}")
        return None

    def _advice(self, response: httpx2.Response) -> str:
        """How to be let in."""
        if get_token() is None:
            return "then log in with `hf auth login`, or set HF_TOKEN"
        if origin(str(response.url)) not in self._trusted:
            host = host_of(str(response.url))
            return (
                f"then say --token-for {host} if it is a hub that your token is for: your token is "
                "not sent to others"
            )
        return "then check that your token may read it"


class _NoRevisionError(UnavailableError):
    """The repository is there, and no such revision."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """A file as the Hub lists it; `digest` is there for large files only."""

    path: str
    size: int
    digest: Digest | None
    blob_id: str | None

    @classmethod
    def of_sibling(cls, entry: dict[str, Any]) -> _Listed:
        """From the description of a repository. Raises ValueError and the like."""
        return cls.of(entry["rfilename"], entry.get("size"), entry.get("blobId"), entry, "sha256")

    @classmethod
    def of_tree(cls, entry: dict[str, Any]) -> _Listed | None:
        """From a list of files and folders. Raises ValueError and the like."""
        if entry["type"] != "file":
            return None
        return cls.of(entry["path"], entry.get("size"), entry.get("oid"), entry, "oid")

    @classmethod
    def of(
        cls, path: str, size: int | None, blob_id: str | None, entry: dict[str, Any], sha256: str
    ) -> _Listed:
        lfs = entry.get("lfs")
        if lfs is not None:
            size = lfs["size"]
        if type(path) is not str or type(size) is not int or not 0 <= size <= LARGEST_FILE:
            raise ValueError("no path, or no size")
        path.encode()  # Raises UnicodeError for half a character, which no address can hold.
        if blob_id is not None and not SHA1.fullmatch(blob_id):
            raise ValueError("no git id")
        return cls(path, size, Digest(lfs[sha256]) if lfs is not None else None, blob_id)


@dataclass(frozen=True, slots=True)
class _Info:
    """What the Hub says of a repository at one revision; `name` is the one that it has now."""

    name: str
    commit_hash: str
    gated: bool
    license: str | None
    files: list[_Listed] | None

    @classmethod
    def parse(cls, text: bytes, _: object) -> _Info:
        """Raises ValueError and the like for what no hub says."""
        info = _document(text)
        name, commit_hash = info["id"], info["sha"]
        if not SHA1.fullmatch(commit_hash):
            raise ValueError("no commit")
        hf_hub_url(name, "-")  # Raises HFValidationError, which is a ValueError, for what is none.
        card = info.get("cardData")
        siblings = info.get("siblings") or []
        has_sizes = all("size" in sibling for sibling in siblings)
        files = [_Listed.of_sibling(sibling) for sibling in siblings] if has_sizes else None
        license = _license(card) if isinstance(card, dict) else None
        return cls(name, commit_hash, bool(info.get("gated")), license, files)


@dataclass(frozen=True, slots=True)
class _Page(Generic[T]):
    """Some entries of a list. `link`: the address of the next page; `following`: its path."""

    entries: list[T]
    link: str = ""
    following: str = ""


def _page(
    text: bytes,
    headers: Mapping[str, str],
    seen: Container[str],
    read: Callable[[dict[str, Any]], T],
) -> _Page[T]:
    """Raises ValueError and the like for what is no page, or leads to one that was `seen`."""
    entries = [read(entry) for entry in _document(text)]
    found = _NEXT_PAGE.search(headers.get("Link", ""))
    if found is None or not entries:
        return _Page(entries)
    if found["path"] in seen or not is_address(found["link"]):
        raise ValueError("the same page again, or none")
    return _Page(entries, found["link"], found["path"])


def _document(text: bytes) -> Any:
    """Raises ValueError for what is no JSON, or has so many values that they fill the memory.

    An empty list takes thirty times its text.
    """
    if sum(map(text.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise ValueError("more values than any hub sends")
    return json.loads(text)


def _commit_of(entry: dict[str, Any]) -> str:
    """The hash of a commit that the Hub lists. Raises ValueError and the like."""
    if not SHA1.fullmatch(entry["id"]):
        raise ValueError("no commit")
    return str(entry["id"])


def _page_of(response: httpx2.Response, kind: str, name: str) -> str:
    """Where a person accepts the terms of a repository."""
    folder = "" if kind == "model" else f"{kind}s/"
    return f"{origin(str(response.url))}/{folder}{name}"


def _notes(name: str, canonical: str) -> tuple[str, ...]:
    """The Hub minds no letter case, and caches do."""
    own, theirs = name.rpartition("/")[2], canonical.rpartition("/")[2]
    if own == theirs or own.lower() != theirs.lower():
        return ()
    return (f"{name} is written {canonical} on the Hub: it loads only as one of these two",)


def _license(card: dict[str, Any]) -> str | None:
    license = card.get("license")
    if isinstance(license, list):
        license = ", ".join(str(item) for item in license)
    return plain_text(license) if isinstance(license, str) and license else None
