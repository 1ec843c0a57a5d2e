"""Folders that bundler filled, in which everything else is foreign."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bundler.disk import PYTHON_CACHE, paths_below
from bundler.receipt import InstalledModel, Place

_DEPTHS = {"hf-cache": 3, "torch-hub": 2, "insightface": 2}
"""Parts of the path of such a folder: a snapshot, the code of a repository, a pack."""


def filled_folders(model: InstalledModel) -> set[Place]:
    """The folders that hold nothing but files of `model`, unless somebody else put some there."""
    folders = set()
    for root, path in model.places:
        depth = _DEPTHS.get(model.layout, 0)
        if model.layout == "hf-datasets":
            depth = len(path.parts) - 1
        in_snapshot = root == "hub" and path.parts[1:2] == ("snapshots",)
        if (in_snapshot or model.layout != "hf-cache") and 0 < depth < len(path.parts):
            folders.add((root, path.start(depth)))
    return folders


def places_below(folder: Place, path: Path) -> Iterator[Place]:
    """Every file and link below the folder, which is at `path`; not what Python compiled."""
    root, start = folder
    for found in paths_below(path, without={PYTHON_CACHE}):
        yield root, start / found.relative_to(path).as_posix()
