"""A folder or a file that a program names by its path, such as `./checkpoints/gpt2`."""

from __future__ import annotations

import os
from pathlib import Path

from bundler.checks import AGAIN, Found
from bundler.completeness import absences
from bundler.disk import files_below, start_of
from bundler.environment import Roots
from bundler.hub_cache import LARGEST_LIST
from bundler.lookups import PlainPath


def find_plain(wanted: PlainPath, spec: str, roots: Roots, *, is_model: bool = False) -> Found:
    """What is at a path; else under its last part among the plain folders that bundler made.

    `is_model`: it is sure to be a folder that a model is loaded from.
    """
    found = Found(spec, (wanted.path,))
    path = Path(os.path.expanduser(wanted.path))
    if not os.path.lexists(path) and os.path.lexists(roots.checkpoints / path.name):
        path = roots.checkpoints / path.name
    if not os.path.lexists(path):
        found.missing(
            f"there is nothing at {path}",
            "unpack its bundle with --checkpoints, and start the program in the folder that its "
            "path begins at",
        )
        return found
    if not os.path.isdir(path):
        found.add(path.name, path)
        return found
    if not os.access(path, os.R_OK | os.X_OK):
        found.closed(path)
        return found
    for place in files_below(path):
        found.add(place.relative_to(path).as_posix(), place)
    if not found.faults:
        _check_completeness(found, path, is_model)
    return found


def _check_completeness(found: Found, folder: Path, is_model: bool) -> None:
    def read(inner: str) -> bytes:
        return start_of(found.files[inner], LARGEST_LIST)

    if not found.files:
        found.missing(f"{folder} is empty", f"{AGAIN}, with --checkpoints")
    else:
        for absence in absences(found.sizes, read, is_model=is_model):
            found.missing(
                f"{folder} has no {absence.path}: {absence.reason}", f"{AGAIN}, with --checkpoints"
            )
