"""Folders, and what others have put into them, that come to stay: on disk before it is told."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def make_folder(folder: Path) -> list[Path]:
    """Make `folder`, and those above it, where they are missing; what was made, the inner first.

    Raises OSError; then nothing was made.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place in missing:
            # Not everybody who can put something there can open it, and somebody may remove it.
            with suppress(PermissionError, FileNotFoundError):
                sync_folder(place.parent)
    except BaseException:
        remove_empty(missing)
        raise
    return missing


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of `folders` that are there, with nothing in them."""
    for folder in folders:
        with suppress(OSError):
            os.rmdir(folder)


def sync_folder(folder: Path) -> None:
    """Have all names in `folder` outlast a loss of power. Raises OSError."""
    _sync(folder, os.O_DIRECTORY)


def sync_file(file: Path) -> None:
    """Have what was written to `file` outlast a loss of power. Raises OSError."""
    _sync(file, 0)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
