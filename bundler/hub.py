"""One Hugging Face Hub repository at one revision -> a pinned list of its files.

Metadata comes through huggingface_hub, which knows the Hub's ways; content through `download`,
which resumes. Nothing is asked of, or written to, the user's own cache.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import HfApi, get_token, hf_hub_url
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import (
    BlobLfsInfo,
    DatasetInfo,
    ModelInfo,
    RepoFile,
    SpaceInfo,
)

from bundler.digest import Digest, Stream
from bundler.download import (
    STALL_SECONDS,
    TransientError,
    UnreachableError,
    Web,
    asked_wait,
    patiently,
    reason,
)
from bundler.errors import RequestError, UnavailableError, shown
from bundler.names import plain_text
from bundler.remote import RemoteFile, RemoteSnapshot

DEFAULT_ENDPOINT = "https://huggingface.co"
LAYOUT = "hf-cache"
_COMMIT_HASH = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?", re.ASCII)
_SHORT_HASH = re.compile(r"[0-9a-f]{7,39}")
_LISTING_LIMIT = 50_000
"""Files from which on the Hub's description may be cut short, and the tree is asked instead."""


class NoRepositoryError(UnavailableError):
    """There is none of that name and kind, as far as the Hub tells."""


T = TypeVar("T")
RepoInfo = ModelInfo | DatasetInfo | SpaceInfo


class Hub:
    """The Hub at one endpoint. `endpoint`: None for `HF_ENDPOINT`, or else the public one."""

    def __init__(self, web: Web, endpoint: str | None = None) -> None:
        configured = os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT
        self.endpoint = (endpoint or configured).rstrip("/")
        if not _is_address(self.endpoint):
            raise RequestError(f"the endpoint {shown(self.endpoint)} is no http or https address")
        # The token was given for the Hub that is set up, not for whatever a command line names.
        trusted = {urlsplit(DEFAULT_ENDPOINT).netloc, urlsplit(configured).netloc}
        self._token = get_token() if urlsplit(self.endpoint).netloc in trusted else None
        if self._token is not None and not self._token.isascii():
            raise RequestError("the token has a character that no token has: copy it again")
        self._api = HfApi(self.endpoint, token=self._token or False)
        self._web = web

    def snapshot(
        self,
        source: str,
        kind: str,
        name: str,
        revision: str | None,
        specs: tuple[str, ...] = (),
    ) -> RemoteSnapshot:
        """All files of the repository `name` at `revision` (None: `main`).

        `kind`: model, dataset or space. `specs`: other words that it was asked for with. Raises
        RequestError for a name that no repository can have, UnavailableError if there is none, it
        is not open to the user, or the Hub is not reached.
        """
        revision = revision or "main"
        try:
            info = self._asked(lambda: self._info(kind, name, revision))
            commit_hash = str(info.sha)
            files = self._asked(lambda: self._files(kind, name, commit_hash, info))
        except HFValidationError:
            raise RequestError(f"{name!r} is not a repository's name: write org/name") from None
        except OfflineModeIsEnabled:
            raise UnavailableError(
                "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set here, which forbids downloads: "
                "pack in a shell where neither is"
            ) from None
        except httpx2.HTTPError as error:
            raise self._explained(error, kind, name, revision) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UnavailableError(
                f"{self.endpoint} does not answer as a hub does: check the network, or --endpoint"
            ) from None
        if info.gated and files:
            self._check_gate(kind, name, commit_hash, files[0])
        return RemoteSnapshot(
            source=source,
            name=name,
            layout=LAYOUT,
            files=tuple(sorted(files, key=lambda file: file.path)),
            kind=kind,
            aliases=() if info.id == name else (str(info.id),),
            revision=revision,
            commit_hash=commit_hash,
            license=_license(info),
            specs=specs,
            notes=_notes(name, str(info.id)),
        )

    def _asked(self, ask: Callable[[], T]) -> T:
        """What `ask` gives, asked again while the Hub is in trouble; raises what `ask` does."""

        def attempt() -> T:
            try:
                return ask()
            except HfHubHTTPError as error:
                if error.response.status_code == 429 or error.response.status_code >= 500:
                    wait = asked_wait(error.response.headers)
                    raise TransientError(str(error), wait) from error
                raise
            except httpx2.HTTPError as error:
                raise UnreachableError(str(error)) from error

        try:
            return patiently(attempt)
        except TransientError as error:
            if isinstance(error.__cause__, httpx2.HTTPError):
                raise error.__cause__ from None
            raise

    def _info(self, kind: str, name: str, revision: str) -> RepoInfo:
        """The Hub's description of a repository, pinned to a commit."""

        def ask(revision: str) -> RepoInfo:
            info = self._api.repo_info(
                name, repo_type=kind, revision=revision, files_metadata=True, timeout=STALL_SECONDS
            )
            assert isinstance(info, RepoInfo)
            return info

        try:
            info = ask(revision)
        except RevisionNotFoundError:
            # Libraries pin short hashes (transformers' pipelines do), which the Hub does not take.
            full = self._full_hash(kind, name, revision)
            if full is None:
                raise
            info = ask(full)
        if not _COMMIT_HASH.fullmatch(str(info.sha)) or not _NAME.fullmatch(info.id):
            raise ValueError("no commit, or no name")
        return info

    def _full_hash(self, kind: str, name: str, revision: str) -> str | None:
        """The one commit on the main branch that `revision` abbreviates."""
        if not _SHORT_HASH.fullmatch(revision):
            return None
        commits = self._api.list_repo_commits(name, repo_type=kind)
        found = [c.commit_id for c in commits if c.commit_id.startswith(revision)]
        return found[0] if len(found) == 1 else None

    def _files(self, kind: str, name: str, commit_hash: str, info: RepoInfo) -> list[RemoteFile]:
        siblings = info.siblings or []
        if len(siblings) < _LISTING_LIMIT:
            return [
                self._file(kind, name, commit_hash, s.rfilename, s.size, s.blob_id, s.lfs)
                for s in siblings
            ]
        tree = self._api.list_repo_tree(name, recursive=True, revision=commit_hash, repo_type=kind)
        return [
            self._file(kind, name, commit_hash, item.path, item.size, item.blob_id, item.lfs)
            for item in tree
            if isinstance(item, RepoFile)
        ]

    def _file(
        self,
        kind: str,
        name: str,
        commit_hash: str,
        path: str,
        size: int | None,
        blob_id: str | None,
        lfs: BlobLfsInfo | None,
    ) -> RemoteFile:
        url = self._url(kind, name, commit_hash, path)
        if lfs is not None:
            size, etag = lfs.size, lfs.sha256
        else:
            etag = blob_id or ""
        digest = Digest(etag) if lfs is not None else None
        if size is None or size < 0:
            raise ValueError("a file without a size")
        return RemoteFile(
            path=path,
            open=partial(self._open, name, url),
            identity=str(digest) if digest else f"git:{blob_id}" if blob_id else url,
            size=size,
            digest=digest,
            git_sha1=blob_id if lfs is None else None,
            etag=etag or None,
        )

    def _url(self, kind: str, name: str, commit_hash: str, path: str) -> str:
        return hf_hub_url(name, path, repo_type=kind, revision=commit_hash, endpoint=self.endpoint)

    def _open(self, name: str, url: str, offset: int) -> Stream:
        return self._web.open(url, offset, self._headers(), partial(self._refusal, name))

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def _check_gate(self, kind: str, name: str, commit_hash: str, file: RemoteFile) -> None:
        """A gated repository shows its files to all and gives them to some: ask for one."""
        url = self._url(kind, name, commit_hash, file.path)
        explain = partial(self._refusal, name)
        refusal = patiently(lambda: self._web.refusal(url, self._headers(), explain))
        if refusal is not None:
            raise refusal

    def _refusal(self, name: str, response: httpx2.Response) -> UnavailableError | None:
        """What a refused file means."""
        if response.url.host != urlsplit(self.endpoint).hostname:
            return None
        if response.status_code in (401, 403):
            return UnavailableError(
                f"{name} is gated or private: accept its terms at {self.endpoint}/{name}, "
                f"{self._advice()}"
            )
        return None

    def _advice(self) -> str:
        if self._token is None and get_token() is not None:
            return (
                f"and note that your token is not sent to {urlsplit(self.endpoint).netloc}: "
                "set HF_ENDPOINT to it if it is the hub that the token is for"
            )
        if self._token is None:
            return "then log in with `hf auth login`, or set HF_TOKEN"
        return "and check that your token may read it"

    def _explained(
        self, error: httpx2.HTTPError, kind: str, name: str, revision: str
    ) -> UnavailableError:
        host = urlsplit(self.endpoint).netloc
        status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
        if isinstance(error, GatedRepoError):
            said = f"{name} is gated: accept its terms at {self.endpoint}/{name}, {self._advice()}"
        elif isinstance(error, RevisionNotFoundError):
            said = f"{name} has no branch, tag or commit {revision!r} on {host}: check the spelling"
        elif isinstance(error, DisabledRepoError):
            said = f"{host} refuses access to {name}: the repository is disabled"
        elif status in (401, 404):
            advice = self._advice().removeprefix("then ")
            return NoRepositoryError(
                f"{host} has no {kind} {name}: check the spelling; if it is private, {advice}"
            )
        elif status == 403:
            said = f"{host}, or a proxy on the way, refuses access to {name}"
        elif status is not None:
            said = f"{host} answered {status} when asked for {name}: try again later"
        else:
            said = (
                f"{host} cannot be reached ({reason(error)}): check the network, "
                "or name a mirror with --endpoint"
            )
        return UnavailableError(said)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc


def _notes(name: str, canonical: str) -> tuple[str, ...]:
    """The Hub minds no letter case, and caches do."""
    own, theirs = name.rpartition("/")[2], canonical.rpartition("/")[2]
    if own == theirs or own.lower() != theirs.lower():
        return ()
    return (f"{name} is written {canonical} on the Hub: it loads only as one of these two",)


def _license(info: RepoInfo) -> str | None:
    license = info.card_data.get("license") if info.card_data else None
    if isinstance(license, list):
        license = ", ".join(str(item) for item in license)
    return plain_text(license) if isinstance(license, str) and license else None
