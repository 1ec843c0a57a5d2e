"""What the cache of huggingface_hub says of itself: which files, and what should be in them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundler.disk import start_of
from bundler.layouts.hf_cache import listed

LARGEST_LIST = 32 << 20
"""Bytes of a list of files, or of shards, that is looked into."""


def listed_files(folder: Path, commit_hash: str) -> dict[str, dict[str, Any]]:
    """The files that a repository has at a commit, as huggingface_hub noted them; it may have none.

    `folder` is the repository's.
    """
    try:
        text = start_of(folder / "trees" / f"{commit_hash}.json", LARGEST_LIST)
    except OSError:
        return {}
    return {path: entry for path, entry in (listed(text) or {}).items() if isinstance(entry, dict)}


def listed_size(listed: Mapping[str, Any]) -> int | None:
    """The bytes of a file by its entry in a listing, if that says."""
    size = listed.get("lfs_size", listed.get("size"))
    return size if isinstance(size, int) else None


def etag_of(path: Path | str, listed: Mapping[str, Any]) -> str:
    """Upstream's name for the content of a file of a snapshot, if anything here tells it.

    A sha256 or a git blob id: as the listing has it, else as the blob is called that it links to.
    """
    blob = os.path.basename(os.readlink(path)) if os.path.islink(path) else ""
    return str(listed.get("lfs_sha256") or listed.get("blob_id") or blob)
