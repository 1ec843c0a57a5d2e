"""A file of this machine, as something to carry."""

from __future__ import annotations

from bundler.copies import copy_at
from bundler.digest import Digest
from bundler.relative import RelativePath
from bundler.remote import RemoteFile, content_identity


def local_file(
    folder: str,
    name: str,
    *,
    digest: Digest | None = None,
    git_sha1: str | None = None,
    etag: str | None = None,
) -> RemoteFile:
    """The file `name` in `folder`. The rest is what else is known of it, as in `RemoteFile`.

    Raises RequestError if it is no file, and OSError.
    """
    path = RelativePath(name)
    copy = copy_at(folder, path, content_identity(digest, git_sha1))
    return RemoteFile(
        path,
        copy,
        size=copy.size,
        digest=digest,
        git_sha1=git_sha1,
        etag=etag,
    )
