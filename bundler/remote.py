"""What a source finds: files pinned to a commit, nothing of them read yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bundler.copies import Copy
from bundler.digest import Digest, Stream
from bundler.errors import UnavailableError
from bundler.manifest import Omission

SMALL = 1 << 20
"""Bytes; files up to this size may be read to learn what a model consists of."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file upstream.

    `open(start)` gives a stream of the content from byte `start` on; the caller closes it. It
    raises UnavailableError. `identity` names exactly this content and stays the same from run to
    run: it is what an interrupted download is found by. `size` is in bytes, None if unknown;
    `digest` is upstream's sha256, `sha256_prefix` the beginning of it and `git_sha1` its git blob
    id, where it states one. `copies` are files of this machine that may have the content.
    """

    path: str
    open: Callable[[int], Stream]
    identity: str
    size: int | None = None
    digest: Digest | None = None
    git_sha1: str | None = None
    etag: str | None = None
    sha256_prefix: str = ""
    resumes: bool = True
    """Whether what comes from an offset is sure to be of the same content as what came before."""
    part: Callable[[int, int], Stream] | None = None
    """As `open`, up to before another byte, for several threads at once.

    It raises `web.NoPartsError` if the server gives no parts; None: parts are not to be asked for.
    """
    elsewhere: Callable[[], object] = lambda: None
    """Called when a try went wrong: the next one is to begin with another place, if there is."""
    copies: tuple[Copy, ...] = ()
    is_here: bool = False
    """Whether the file is one of this machine, and looked for nowhere else."""

    @property
    def is_known_by_content(self) -> bool:
        """Whether `identity` is what `content_identity` gives, which any copy has."""
        digest, git = content_identity(self.digest, None), content_identity(None, self.git_sha1)
        return self.identity in (digest, git)


def content_identity(digest: Digest | None, git_sha1: str | None) -> str | None:
    """A `RemoteFile.identity` that is the same wherever the content is; None if nothing tells."""
    if digest is not None:
        return str(digest)
    return None if git_sha1 is None else f"git:{git_sha1}"


PathInside = Callable[[str], str | None]
"""From the path of a member of an archive to that of the file it becomes; None: not wanted."""


@dataclass(frozen=True, slots=True)
class RemoteSnapshot:
    """One model upstream at one commit. Fields as in `manifest.Snapshot`, and:

    `inside`: if set, `files` is one zip archive, and this picks the files of the model out of it.
    `notes`: what the user should know before carrying it, one sentence each.
    """

    source: str
    name: str
    layout: str
    files: tuple[RemoteFile, ...]
    kind: str | None = None
    aliases: tuple[str, ...] = ()
    revision: str | None = None
    commit_hash: str | None = None
    license: str | None = None
    omitted: tuple[Omission, ...] = ()
    specs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    inside: PathInside | None = None
    notes: tuple[str, ...] = ()


class NoRepositoryError(UnavailableError):
    """There is none of that name and kind, as far as the Hub tells."""


class Repositories(Protocol):
    """Where repositories of the Hub are looked up: the Hub itself, or what is kept of it here."""

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
        is not open to the user, or cannot be reached.
        """
