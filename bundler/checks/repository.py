"""A repository in the cache of huggingface_hub, as its readers would find it.

How they look is in huggingface_hub: `file_download.py` (folder, ref, snapshot, marker) and
`_snapshot_download.py` (the list of files). Whoever filled the cache, nothing but these counts.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bundler.checks import AGAIN, Found, word
from bundler.checks.misplaced import explain_absence
from bundler.checks.revision import find_commit
from bundler.completeness import absences
from bundler.content import Promise
from bundler.digest import SHA1, SHA256
from bundler.disk import entries, files_below, start_of
from bundler.environment import Roots
from bundler.errors import RequestError
from bundler.hub_cache import LARGEST_LIST, etag_of, listed_files, listed_size
from bundler.layouts.hf_cache import repository_folder, repository_name
from bundler.lookups import Repository
from bundler.names import relative_path
from bundler.selection import Selection


def find_repository(wanted: Repository, spec: str, roots: Roots, selection: Selection) -> Found:
    """What the cache has of `wanted`, and what keeps a program from loading that.

    `selection`: which of its files matter. Raises RequestError for an impossible name or
    revision.
    """
    found = Found(spec, (wanted.name,))
    try:
        folder = roots.hub / repository_folder(wanted.kind, wanted.name)
        revision = relative_path(wanted.revision or "main")
    except ValueError as error:
        is_path = spec.startswith((".", "/", "~"))
        hint = f"; for a folder, say file:{spec}" if is_path else ""
        raise RequestError(f"{error}{hint}") from None
    if not os.path.isdir(folder):
        explain_absence(found, folder, wanted, roots)
        return found
    if not os.access(folder, os.R_OK | os.X_OK):
        found.closed(folder)
        return found
    commit_hash = find_commit(found, folder, revision)
    if commit_hash is None:
        return found
    found = Found(spec, (wanted.name, *_other_names(folder)), commit_hash)
    listed = listed_files(folder, commit_hash)
    content = folder / "snapshots" / commit_hash
    shared = Path(os.path.realpath(roots.hub), "blobs")
    for path in files_below(content):
        inner = path.relative_to(content).as_posix()
        _add(found, path, inner, listed.get(inner, {}), shared)
    _check_markers(found, folder / ".no_exist" / commit_hash)
    if found.faults:
        return found
    if not any(map(selection.wants, found.files)):
        found.missing(f"{content} has none of the files that are wanted", found.bring)
        return found
    names = {path for path in listed if selection.wants(path)}
    if wanted.kind == "model":
        _check_model(found, wanted, folder, names, selection)
    if wanted.kind != "model" or selection.include:
        _check_list(found, folder, names)
    return found


def _add(found: Found, path: Path, inner: str, listed: Mapping[str, Any], shared: Path) -> None:
    """Note a file of the snapshot. `shared`: the store of all repositories' large files."""
    if not os.path.exists(path):
        lost = Path(os.path.realpath(path))
        if shared in lost.parents and not os.path.lexists(lost):
            found.missing(
                f"{inner} of {found.names[0]} leads to {lost}, which was not copied with it", AGAIN
            )
            return
    found.add(inner, path, listed_size(listed))
    if inner in found.files:
        etag = etag_of(path, listed)
        if SHA256.fullmatch(etag):
            found.promises[inner] = Promise(sha256=etag)
        elif SHA1.fullmatch(etag):
            found.promises[inner] = Promise(git_sha1=etag)


def _check_markers(found: Found, markers: Path) -> None:
    for marker in files_below(markers):
        inner = marker.relative_to(markers).as_posix()
        if inner in found.files:
            found.hindered(
                f"a marker says that {found.names[0]} has no {inner}, which is here",
                f"rm {word(marker)}",
            )


def _check_model(
    found: Found, wanted: Repository, folder: Path, listed: Collection[str], selection: Selection
) -> None:
    """Note what a library would miss; that the list of files has more is no fault for it."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for absence in absences(found.sizes, partial(_read, found), wanted.library, listed):
        if selection.wants(absence.path):
            by_reason[absence.reason].append(absence.path)
    for reason, paths in by_reason.items():
        is_listed = any(path in listed for path in paths)
        cure = _without_list(found, folder) if is_listed else found.bring
        found.missing(f"{wanted.name} has no {_some(paths)}: {reason}", cure)
    others = sorted(path for path in listed if path not in found.files)
    if others and not (by_reason or selection.include or wanted.library == "timm"):
        found.notes.append(
            f"{wanted.name}: {_some(others)}, which its list of files names, not here: to load it "
            "takes none of that, but snapshot_download without patterns would fail"
        )


def _check_list(found: Found, folder: Path, listed: Collection[str]) -> None:
    """Of a list that names more than is there, huggingface_hub says that the snapshot is broken."""
    absent = sorted(path for path in listed if path not in found.files)
    if absent and not found.faults:
        found.missing(
            f"{found.names[0]}: its list of files names {_some(absent)}, not here",
            _without_list(found, folder),
        )


def _without_list(found: Found, folder: Path) -> str:
    path = folder / "trees" / f"{found.commit_hash}.json"
    return f"{AGAIN}, or, if no program needs that, rm {word(path)}"


def _some(paths: list[str]) -> str:
    return f"{paths[0]} and {len(paths) - 1:,} more" if len(paths) > 1 else paths[0]


def _read(found: Found, path: str) -> bytes:
    return start_of(found.files[path], LARGEST_LIST)


def _other_names(folder: Path) -> Iterator[str]:
    """Names of repositories that are links to this one, or that this one is a link to."""
    real = os.path.realpath(folder)
    for other in (*entries(folder.parent), Path(real)):
        if other != folder and "--" in other.name and os.path.realpath(other) == real:
            yield repository_name(other.name)
