"""A repository in the cache of huggingface_hub, as its readers would find it.

How they look is in huggingface_hub: `file_download.py` (folder, ref, snapshot, marker) and
`_snapshot_download.py` (the list of files). Whoever filled the cache, nothing but these counts.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Any

from bundler.checks import AGAIN, Found
from bundler.completeness import absences
from bundler.content import Promise
from bundler.environment import Roots
from bundler.errors import RequestError
from bundler.layouts.hf_cache import repository_folder
from bundler.lookups import Repository
from bundler.remote import SMALL

_COMMIT_HASH = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST_LIST = 64 << 20
"""Bytes of a list of files that is looked into."""


def find_repository(
    wanted: Repository, spec: str, roots: Roots, *, code_only: bool = False, some_only: bool = False
) -> Found:
    """What the cache has of `wanted`, and what of it keeps a program from loading it.

    `code_only`: another model needs no more than its code. `some_only`: the user wants some of its
    files, so what others there should be is not known. Raises RequestError for an impossible name.
    """
    found = Found(spec, (wanted.name,))
    try:
        folder = roots.hub / repository_folder(wanted.kind, wanted.name)
    except ValueError as error:
        raise RequestError(str(error)) from None
    if not folder.is_dir():
        _explain_absence(found, folder, wanted, roots)
        return found
    revision = wanted.revision or "main"
    commit_hash = _commit(found, folder, revision)
    if commit_hash is None:
        return found
    found = Found(spec, (wanted.name, *_other_names(folder)), commit_hash)
    content = folder / "snapshots" / commit_hash
    listed = _listing(folder / "trees" / f"{commit_hash}.json")
    for path in _below(content):
        inner = path.relative_to(content).as_posix()
        _add_file(found, path, inner, listed.get(inner, {}), folder)
    if not found.files and not found.faults:
        found.missing(f"{content} has no files in it", found.bring)
    _check_listing(found, folder, listed)
    _check_markers(found, folder / ".no_exist" / commit_hash)
    if wanted.kind == "model" and not (code_only or some_only or found.faults):
        _check_completeness(found, wanted)
    return found


def _explain_absence(found: Found, folder: Path, wanted: Repository, roots: Roots) -> None:
    """Say why the folder of a repository is not found, and where something like it is."""
    if folder.is_symlink():
        found.missing(f"{folder} is a link that leads nowhere", f"rm {quote(str(folder))}, and "
                      + found.bring)  # fmt: skip
        return
    if os.path.lexists(folder):
        found.hindered(f"{folder} is no folder", f"rm {quote(str(folder))}, and {found.bring}")
        return
    if not os.access(roots.hub, os.R_OK | os.X_OK) and roots.hub.is_dir():
        found.hindered(
            f"{roots.hub} cannot be read",
            f"sudo chmod -R a+rX {quote(str(roots.hub))}, or run this as its owner",
        )
        return
    for place in dict.fromkeys((roots.hf_home, roots.hub / "hub", roots.hub / "huggingface/hub")):
        if place != roots.hub and (place / folder.name).is_dir():
            found.missing(
                f"{wanted.name} is in {place}, but libraries look in {roots.hub}",
                f"export HF_HUB_CACHE={quote(str(place))}",
            )
            return
    for other in _entries(roots.hub):
        if other.is_dir() and _letters(other.name) == _letters(folder.name):
            found.missing(
                f"{other} is not called as libraries look for it",
                f"mv {quote(str(other))} {quote(str(folder))}",
            )
            return
    last = wanted.name.rpartition("/")[2].lower()
    for other in _entries(roots.hub):
        kind, *name = other.name.split("--")
        if kind == f"{wanted.kind}s" and name and name[-1].lower() == last and other.is_dir():
            found.missing(
                f"{wanted.name} is not in {roots.hub} under that name, but {'/'.join(name)} is",
                f"if that is the same, ln -s {quote(other.name)} {quote(str(folder))}",
            )
            return
    found.missing(f"{wanted.name} is not in {roots.hub}", found.bring)


def _commit(found: Found, folder: Path, revision: str) -> str | None:
    """The commit that a library would find for `revision`; None, with a fault noted, if none."""
    snapshots = folder / "snapshots"
    there = [path.name for path in _entries(snapshots) if path.is_dir()]
    if revision in there:
        return revision
    ref = folder / "refs" / revision
    others = [name for name in there if _COMMIT_HASH.fullmatch(name)]
    mend = f"printf %s {others[0]} >{quote(str(ref))}" if len(others) == 1 else ""
    try:
        text = ref.read_text("utf-8") if ".." not in revision.split("/") else ""
    except FileNotFoundError:
        known = sorted(path.relative_to(folder / "refs").as_posix()
                       for path in _below(folder / "refs"))  # fmt: skip
        begins = [name for name in others if len(revision) >= 7 and name.startswith(revision)]
        if len(begins) == 1:
            mend = f"printf %s {begins[0]} >{quote(str(ref))}"
        has = f"only {', '.join([*known, *others])}" if known or others else "nothing at all"
        found.missing(
            f"{found.names[0]} has no revision {revision} in {folder}, {has}",
            mend if begins or (mend and not known) else "load one of these, or pack that one too",
        )
        return None
    except (OSError, UnicodeDecodeError):
        found.hindered(f"{ref} cannot be read", f"rm {quote(str(ref))}, and {AGAIN}")
        return None
    said = text.strip()
    if said in there:
        if text == said:
            return said
        found.damaged(
            f"{ref} has more in it than a commit hash: libraries take the newline for part of it",
            f"printf %s {said} >{quote(str(ref))}",
        )
    elif not said:
        found.damaged(f"{ref} is empty", mend or AGAIN)
    else:
        found.missing(
            f"{found.names[0]}: {revision} has moved to {said[:12]}, which is not here"
            + (f"; {', '.join(name[:12] for name in others)} is" if others else ""),
            mend or "unpack the bundle that has it",
        )
    return None


def _add_file(
    found: Found, path: Path, inner: str, listed: Mapping[str, Any], folder: Path
) -> None:
    lost = Path(os.path.realpath(path))
    if folder.parent / "blobs" in lost.parents and not lost.exists():
        found.missing(
            f"{inner} of {found.names[0]} leads to {lost}, which was not copied with {folder.name}",
            AGAIN,
        )
        return
    if not found.add(inner, path, listed.get("lfs_size", listed.get("size"))):
        return
    etag = os.path.basename(os.readlink(path)) if path.is_symlink() else ""
    etag = str(listed.get("lfs_sha256") or listed.get("blob_id") or etag)
    if _SHA256.fullmatch(etag):
        found.promises[inner] = Promise(sha256=etag)
    elif _COMMIT_HASH.fullmatch(etag):
        found.promises[inner] = Promise(git_sha1=etag)


def _check_listing(found: Found, folder: Path, listed: Mapping[str, object]) -> None:
    """Of a list that names more than is there, huggingface_hub says that the snapshot is broken."""
    absent = sorted(path for path in listed if path not in found.files)
    content = folder / "snapshots" / str(found.commit_hash)
    absent = [path for path in absent if not os.path.lexists(content / path)]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        listing = folder / "trees" / f"{found.commit_hash}.json"
        found.missing(
            f"{found.names[0]}: the list of files promises {absent[0]}{more}, not here",
            f"{AGAIN}, or, if no program needs that, rm {quote(str(listing))}",
        )


def _check_markers(found: Found, markers: Path) -> None:
    for marker in _below(markers):
        inner = marker.relative_to(markers).as_posix()
        if inner in found.files:
            found.hindered(
                f"a marker says that {found.names[0]} has no {inner}, which is here",
                f"rm {quote(str(marker))}",
            )


def _check_completeness(found: Found, wanted: Repository) -> None:
    sizes = {path: place.stat().st_size for path, place in found.files.items()}

    def read(path: str) -> bytes:
        with open(found.files[path], "rb") as file:
            return file.read(_LARGEST_LIST if path.endswith(".index.json") else SMALL)

    for absence in absences(sizes, read, wanted.library):
        found.missing(f"{wanted.name} has no {absence.path}: {absence.reason}", found.bring)


def _listing(path: Path) -> dict[str, dict[str, Any]]:
    """What huggingface_hub notes of a repository's files (_tree_cache.py); it may have none."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        with open(path, "rb") as file:
            files = json.loads(file.read(_LARGEST_LIST))["files"]
        return {path: entry for path, entry in files.items() if isinstance(entry, dict)}
    return {}


def _other_names(folder: Path) -> Iterator[str]:
    """Names of repositories that are links to this one, or that this one is a link to."""
    real = os.path.realpath(folder)
    for other in (*_entries(folder.parent), Path(real)):
        if other != folder and "--" in other.name and os.path.realpath(other) == real:
            yield other.name.partition("--")[2].replace("--", "/")


def _letters(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _below(folder: Path) -> Iterator[Path]:
    """Every file below a folder, and every link; none if there is no folder."""
    for inner, _, names in os.walk(folder):
        yield from (Path(inner, name) for name in sorted(names))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
