"""The cache of huggingface_hub, as `huggingface_hub.snapshot_download` would have left it.

    models--org--name/
        blobs/<etag>                         content, named by upstream's etag
        snapshots/<commit>/<path>            relative links into blobs/
        trees/<commit>.json                  what the snapshot consists of
        refs/<revision>                      the commit that a revision stands for

The folder carries the name that was asked for, since caches are searched by it; every alias is a
link to that folder. What readers accept is in huggingface_hub: `file_download.py` (a ref must not
end in a newline; a marker in `.no_exist` hides a file that is there), `_tree_cache.py` (a listing
that names more than is there makes `snapshot_download` fail).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from bundler.documents import MALFORMED
from bundler.errors import shown
from bundler.layouts.placement import Absent, Exists, File, Link, Placement, Text
from bundler.manifest import FileEntry, Snapshot
from bundler.names import relative_path
from bundler.relative import RelativePath

_TREE_VERSION = 1
"""Of a list of files; huggingface_hub ignores all others."""
_KINDS = ("model", "dataset", "space")


class HuggingFaceCache:
    """Layout `hf-cache`."""

    name = "hf-cache"
    root = "hub"

    def place(
        self, snapshot: Snapshot, can_link: Callable[[RelativePath], bool]
    ) -> Iterator[Placement]:
        if snapshot.commit_hash is None or snapshot.revision is None:
            raise ValueError(f"{shown(snapshot.name)} has no commit hash or no revision")
        folders = [repository_folder(snapshot.kind, name) for name in snapshot.names]
        # A name that the cache holds as a real folder already is the home of the others.
        folder, *others = sorted(folders, key=can_link)
        yield from _repository(snapshot, folder, can_link)
        for other in others:
            if can_link(other):
                yield Link(other, folder)
            else:
                yield from _repository(snapshot, other, can_link)


def _repository(
    snapshot: Snapshot, folder: RelativePath, can_link: Callable[[RelativePath], bool]
) -> Iterator[Placement]:
    commit_hash = str(snapshot.commit_hash)
    content = folder / "snapshots" / commit_hash
    for entry in snapshot.files:
        path = content / entry.path
        if can_link(path):
            blob = folder / "blobs" / _etag(entry)
            yield File(blob, entry.blob, by_content=True)
            yield Link(path, blob)
        else:
            yield File(path, entry.blob, by_content=True)
        yield Absent(folder / ".no_exist" / commit_hash / entry.path)
    yield Text(
        folder / "trees" / f"{commit_hash}.json",
        listing({entry.path: entry for entry in snapshot.files}),
        partial(_merged_tree, snapshot, content),
    )
    revision = relative_path(str(snapshot.revision))
    if str(revision) != commit_hash:
        title = f"{revision} of {snapshot.name}"
        names_in = folder / "snapshots"
        yield Text(folder / "refs" / revision, commit_hash, names_in=names_in, title=title)


def repository_folder(kind: str | None, name: str) -> RelativePath:
    """The name of a repository's folder, by huggingface_hub's rule. Raises ValueError."""
    if kind not in _KINDS:
        raise ValueError(f"{shown(name)} is of kind {shown(kind)}, not one of {', '.join(_KINDS)}")
    parts = relative_path(name).parts
    # `--` stands for the slash in folder names, so the Hub allows it in no name, nor `-` at an end.
    if len(parts) > 2 or "--" in name or any(part.strip("-") != part for part in parts):
        raise ValueError(f"{shown(name)} is not a repository's name")
    return relative_path("--".join([f"{kind}s", *parts]))


def repository_name(folder: str) -> str:
    """The id of the repository whose folder is called so."""
    return folder.partition("--")[2].replace("--", "/")


def _etag(entry: FileEntry) -> str:
    return entry.etag or entry.blob.digest.hex


def listing(files: Mapping[str, object]) -> str:
    """The text that lists `files`, each a FileEntry or what huggingface_hub keeps of it."""
    document = {"format_version": _TREE_VERSION, "files": files}
    return json.dumps(document, default=_tree_entry, sort_keys=True)


def listed(text: str | bytes) -> dict[str, Any] | None:
    """The files that a listing names, each with what is said of it; None for what is none."""
    try:
        document = json.loads(text)
        return dict(document["files"]) if document["format_version"] == _TREE_VERSION else None
    except MALFORMED:
        return None


def _tree_entry(entry: FileEntry) -> dict[str, object]:
    """One file in the listing, made as it is written: all of them would take much memory.

    huggingface_hub keeps the sha256 of large files only.
    """
    record: dict[str, object] = {"size": entry.blob.size, "blob_id": _etag(entry)}
    if _etag(entry) == entry.blob.digest.hex:
        record |= {"lfs_sha256": entry.blob.digest.hex, "lfs_size": entry.blob.size}
    return record


def _merged_tree(snapshot: Snapshot, content: RelativePath, text: str, exists: Exists) -> str:
    """The listing with the files that it named before, as far as they are there."""
    try:
        kept = {
            path: entry
            for path, entry in (listed(text) or {}).items()
            if entry["blob_id"] and entry["size"] >= 0 and exists(content / relative_path(path))
        }
    except MALFORMED:
        kept = {}
    return listing(kept | {entry.path: entry for entry in snapshot.files})
