"""Where a repository is that is not where huggingface_hub looks, and how it gets there.

Its folder must be in the cache's own, under the name that it is asked for by, to the letter
(huggingface_hub's file_download.py, repo_folder_name).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from bundler.checks import Found, word
from bundler.disk import entries
from bundler.environment import Roots
from bundler.layouts.hf_cache import repository_name
from bundler.lookups import Repository

_FOLDER = re.compile(r"(model|dataset|space)s--.+")


def explain_absence(found: Found, folder: Path, wanted: Repository, roots: Roots) -> None:
    """Note that `folder`, the repository's, is not in the cache, and why."""
    hub = roots.hub
    if os.path.islink(folder):
        found.missing(
            f"{folder} is a link that leads nowhere", f"rm {word(folder)}, and {found.bring}"
        )
    elif os.path.lexists(folder):
        found.hindered(f"{folder} is no folder", f"rm {word(folder)}, and {found.bring}")
    elif os.path.lexists(hub) and not os.access(hub, os.R_OK | os.X_OK):
        found.closed(hub)
    elif place := next(_other_places(folder, roots), None):
        found.missing(
            f"{wanted.name} is in {place}, but libraries look in {hub}",
            f"export HF_HUB_CACHE={word(place)}",
        )
    elif other := next(_misspelt(folder, wanted.name), None):
        found.missing(
            f"{other} is not called as libraries look for it", f"mv {word(other)} {word(folder)}"
        )
    elif other := next(_namesakes(folder, wanted), None):
        found.missing(
            f"{wanted.name} is not in {hub} under that name, but {repository_name(other.name)} is",
            f"if that is the same, ln -s {word(other.name)} {word(folder)}",
        )
    elif not os.path.isdir(hub):
        found.missing(
            f"{wanted.name} is looked for in {hub}, which is not there",
            f"name the --root that its bundle was unpacked to; else {found.bring}",
        )
    else:
        found.missing(f"{wanted.name} is not in {hub}", found.bring)


def _other_places(folder: Path, roots: Roots) -> Iterator[Path]:
    """Caches one level above or below the one that is read."""
    for place in (roots.hf_home, roots.hub / "hub", roots.hub / "huggingface" / "hub"):
        if place != roots.hub and os.path.isdir(place / folder.name / "snapshots"):
            yield place


def _misspelt(folder: Path, name: str) -> Iterator[Path]:
    """Folders with the letters of this one, that no repository can have."""
    for other in entries(folder.parent):
        if (
            _letters(other.name) in (_letters(folder.name), _letters(name))
            and not _FOLDER.fullmatch(other.name)
            and os.path.isdir(other / "snapshots")
        ):
            yield other


def _namesakes(folder: Path, wanted: Repository) -> Iterator[Path]:
    """Repositories of another owner or of none, or written in other capitals: the former name."""
    names = {wanted.name.lower().replace("/", "-"), wanted.name.rpartition("/")[2].lower()}
    for other in entries(folder.parent):
        if other.name.startswith(f"{wanted.kind}s--") and os.path.isdir(other / "snapshots"):
            name = repository_name(other.name).lower()
            if {name.replace("/", "-"), name.rpartition("/")[2]} & names:
                yield other


def _letters(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())
