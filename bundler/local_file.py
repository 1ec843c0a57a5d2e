"""A file of this machine, as something to carry."""

from __future__ import annotations

import os

from bundler.copies import copy_in_state
from bundler.digest import Digest
from bundler.remote import RemoteFile, content_identity


def local_file(
    path: str,
    name: str,
    *,
    digest: Digest | None = None,
    git_sha1: str | None = None,
    etag: str | None = None,
) -> RemoteFile:
    """The file at `path`, called `name`. The rest is what else is known of it, as in `RemoteFile`.

    Raises RequestError if it is no file, and OSError.
    """
    state = os.stat(path)
    copy = copy_in_state(path, state)
    # A file that was changed is other content, under the same name.
    as_it_is = f"file:{path}:{state.st_ino}:{copy.size}:{copy.mtime_ns}"
    return RemoteFile(
        path=name,
        open=copy.open,
        identity=content_identity(digest, git_sha1) or as_it_is,
        size=copy.size,
        digest=digest,
        git_sha1=git_sha1,
        etag=etag,
        copies=(copy,),
        is_here=True,
    )
