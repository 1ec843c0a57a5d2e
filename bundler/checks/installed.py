"""What receipts say of the files that were found: which there were, and what was in them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bundler.checks import Found
from bundler.content import Promise
from bundler.digest import Digest
from bundler.environment import Roots
from bundler.receipt_folder import read_receipts


@dataclass(frozen=True, slots=True)
class Installed:
    """A file that nobody is expected to change. `place`: its path, with no link above it."""

    path: Path
    place: str
    digest: Digest


def installed_files(roots: Roots) -> list[Installed]:
    """All that receipts tell of, sorted. Raises TargetError if these cannot be read."""
    digests = {
        roots.kept_at(file.root) / file.path: file.blob.digest
        for receipt in read_receipts(roots.hf_home)
        for model in receipt.models
        for file in model.files
        if not model.may_be_edited(file)
    }
    real = cache(os.path.realpath)  # Thousands of files stand in a few folders.
    return [
        Installed(path, os.path.join(real(path.parent), path.name), digests[path])
        for path in sorted(digests)
    ]


def add_files(found: Found, installed: Sequence[Installed]) -> None:
    """Note, of a folder that lists its files nowhere, all that were unpacked into it."""
    if found.folder is None:
        return
    start = os.path.join(os.path.realpath(found.folder), "")
    for file in installed:
        inner = file.place[len(start) :]
        if file.place.startswith(start) and inner not in found.files:
            found.add(inner, file.path)


def add_promises(everything: Sequence[Found], installed: Sequence[Installed]) -> None:
    """Note, of files of which nothing else tells what should be in them, what receipts say."""
    digests = {os.path.realpath(file.place): file.digest for file in installed}
    for found in everything:
        for inner in found.files.keys() - found.promises.keys():
            digest = digests.get(os.path.realpath(found.files[inner]))
            if digest:
                found.promises[inner] = Promise(sha256=digest.hex)
