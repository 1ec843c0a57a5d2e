"""A folder or a file that a program names by its path, such as `./checkpoints/gpt2`."""

from __future__ import annotations

import os
from pathlib import Path
from shlex import quote

from bundler.checks import AGAIN, Found
from bundler.completeness import absences
from bundler.content import flaw
from bundler.environment import Roots
from bundler.lookups import PlainPath
from bundler.remote import SMALL


def find_plain(wanted: PlainPath, spec: str, roots: Roots) -> Found:
    """What is at a path; else under its last part among the plain folders that bundler made."""
    found = Found(spec, (wanted.path,))
    path = Path(wanted.path).expanduser()
    if not path.exists() and (roots.checkpoints / path.name).exists():
        path = roots.checkpoints / path.name
    if not path.exists():
        found.missing(
            f"there is nothing at {path}",
            "unpack its bundle with --checkpoints, and start the program in the folder that its "
            "path begins at",
        )
        return found
    if path.is_file():
        _add(found, path, path.name)
        return found
    for inner, _, names in os.walk(path):
        for name in names:
            place = Path(inner, name)
            _add(found, place, place.relative_to(path).as_posix())
    if not found.faults:
        _check_completeness(found, path)
    return found


def _add(found: Found, path: Path, inner: str) -> None:
    if not path.is_file():
        found.missing(f"{path} is a link that leads nowhere", AGAIN)
        return
    if not os.access(path, os.R_OK):
        found.hindered(f"{path} cannot be read", f"sudo chmod a+r {quote(str(path))}")
        return
    found.files[inner] = path
    plainly = flaw(path, inner)
    if plainly is not None:
        found.damaged(f"{path} {plainly}", f"rm {quote(str(path))}, and {AGAIN}")


def _check_completeness(found: Found, folder: Path) -> None:
    sizes = {inner: path.stat().st_size for inner, path in found.files.items()}

    def read(inner: str) -> bytes:
        with open(found.files[inner], "rb") as file:
            return file.read(SMALL)

    for absence in absences(sizes, read):
        found.missing(
            f"{folder} has no {absence.path}: {absence.reason}",
            f"{AGAIN}, with --checkpoints",
        )
