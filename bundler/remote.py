"""What a source finds: files pinned to a commit, nothing of them read yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from bundler.copies import Copy
from bundler.digest import Digest
from bundler.errors import UnavailableError
from bundler.manifest import Omission
from bundler.origin import Key, Origin

SMALL = 1 << 20
"""Bytes; files up to this size may be read to learn what a model consists of."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file upstream, and where it comes from.

    `size` is in bytes, None if unknown; `digest` is upstream's sha256, `sha256_prefix` the
    beginning of it and `git_sha1` its git blob id, where it states one. `copies` are files of this
    machine that may have the content of one from elsewhere.
    """

    path: str
    origin: Origin
    size: int | None = None
    digest: Digest | None = None
    git_sha1: str | None = None
    etag: str | None = None
    sha256_prefix: str = ""
    copies: tuple[Copy, ...] = ()

    @property
    def key(self) -> Key:
        """Equal for files that are known to have the same content."""
        return self.origin.key

    @property
    def is_here(self) -> bool:
        """Whether the file is one of this machine, and looked for nowhere else."""
        return isinstance(self.origin, Copy)

    @property
    def places_here(self) -> tuple[Copy, ...]:
        """Files of this machine that may have the content."""
        return (self.origin,) if isinstance(self.origin, Copy) else self.copies


def content_identity(digest: Digest | None, git_sha1: str | None) -> str | None:
    """An `Origin.identity` that is the same wherever the content is; None if nothing tells."""
    if digest is not None:
        return str(digest)
    return None if git_sha1 is None else f"git:{git_sha1}"


class ModelFile(NamedTuple):
    """What is to be brought: a file, and the name of the model that it is of, for messages."""

    model: str
    file: RemoteFile

    @property
    def what(self) -> str:
        """What it is called in messages."""
        return f"{self.file.path} of {self.model}"


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
