"""What a source finds: files pinned to a commit, nothing of them read yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bundler.digest import Digest, Stream
from bundler.manifest import Omission


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file upstream.

    `open(offset)` gives a stream of the content from byte `offset` on; the caller closes it. It
    raises UnavailableError. `identity` names exactly this content and stays the same from run to
    run: it is what an interrupted download is found by. `size` is in bytes, None if unknown;
    `digest` is upstream's sha256, `sha256_prefix` the beginning of it and `git_sha1` its git blob
    id, where it states one.
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
