"""A bundle that goes straight into a folder, as a stick is one: its name, a second look, a note."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from itertools import chain, count
from pathlib import Path

from bundler.archive import open_bundle
from bundler.digest import Blob, Digest
from bundler.direct_io import read_blocks
from bundler.disk import entries, start_of
from bundler.errors import BundlerError, DamagedError, TargetError
from bundler.folders import sync_disk
from bundler.names import relative_path
from bundler.permission import told
from bundler.progress import Progress
from bundler.remote import RemoteSnapshot
from bundler.volume_list import LIST_SUFFIX, split_name
from bundler.whole_file import draft_of, write_text

_SUFFIX = ".tar.zst"
_LONGEST = 80
"""Characters of a model's name that a file gets."""
INSTALLER = "bundler-install"
"""The folder with bundler itself, if it is there."""
_README = "README.txt"
_FIRST_LINE = "Models for machines without a network, packed by bundler."
"""By which a README is known to be bundler's own."""
_LARGEST = 1 << 16
"""Bytes of it that are read; it has less."""
_UNPACK = "    bundler unpack {}FOLDER/{}"
_TOLD = re.compile(_UNPACK.format("(DAMAGED --repair |)", r"([\w.-]+)$"), re.ASCII | re.MULTILINE)
_REPAIR = "DAMAGED --repair "
_HOW = {
    "": "On such a machine, with bundler installed, and with the place of this folder for FOLDER:",
    _REPAIR: "This completes a bundle that was found damaged there, with that one for DAMAGED\n"
    "and the place of this folder for FOLDER:",
}


def bundle_name(models: Iterable[RemoteSnapshot]) -> str:
    """What the file of a bundle of `models` is to be called: a name that every system takes.

    Such as `bert-base-uncased.tar.zst`, or `bert-base-uncased-and-3-more.tar.zst`.
    """
    titles = [*dict.fromkeys(map(_title, models))]
    more = f"-and-{len(titles) - 1}-more" if len(titles) > 1 else ""
    return f"{titles[0]}{more}{_SUFFIX}"


def _title(model: RemoteSnapshot) -> str:
    # Of several snapshots that were asked for by one word, the word.
    words = model.specs[0].partition(":")[2] if model.specs else model.name
    last = words.rstrip("/").rpartition("/")[2]
    title = re.sub(r"[^\w.-]+", "-", last, flags=re.ASCII)[:_LONGEST].strip(".-") or "model"
    try:
        relative_path(title)
    except ValueError:  # A device of Windows.
        return f"model-{title}"
    return title


def free_place(path: Path, bundle: Digest) -> Path:
    """Where the bundle with this id goes: `path`, unless something else has that name.

    Then it gets a number, `…-2.tar.zst`. What a killed run left in volumes, of no use to anybody,
    and the same bundle are in nobody's way: they are replaced.
    """
    stem = path.name.removesuffix(_SUFFIX)
    numbered = (path.with_name(f"{stem}-{number}{_SUFFIX}") for number in count(2))
    return next(place for place in chain([path], numbered) if _is_free(place, bundle))


def _is_free(place: Path, bundle: Digest) -> bool:
    if os.path.islink(place) or (os.path.exists(place) and not os.path.isfile(place)):
        return False
    names = [path.name.removesuffix(LIST_SUFFIX) for path in entries(place.parent)]
    names += [numbered[0] for name in names if (numbered := split_name(name))]
    # In any case of letters: FAT takes them for one.
    if place.name.lower() not in map(str.lower, names) and not os.path.lexists(place):
        return True
    try:
        with open_bundle(place) as reader:
            return reader.digest == bundle
    except BundlerError:
        return draft_of(place).exists()


def read_back(files: Sequence[tuple[Path, Blob]], progress: Progress) -> None:
    """Compare files with what was written and synced, as far as can be from the disk itself.

    Raises DamagedError, and OSError.
    """
    with progress.start("reading back", sum(blob.size for _, blob in files)) as meter:
        for path, blob in files:
            sha256, size = hashlib.sha256(), 0
            for data in read_blocks(path):
                sha256.update(data)
                size += len(data)
                meter.add(len(data))
            if (size, sha256.hexdigest()) != (blob.size, blob.digest.hex):
                raise DamagedError(
                    f"{path.parent} gives back other bytes than were written to it: the stick "
                    "fails, or holds less than it says; use another one"
                )


def leave_readme(bundle: Path, *, repairs: bool = False) -> tuple[Path | None, list[str]]:
    """Say beside `bundle`, in README.txt, what it is for, and how to unpack it.

    `repairs`: it completes another one. So for bundles there that it said it of before; and how to
    install bundler, if it is there too. Gives its path, or None and, in one sentence, why there is
    none: it is somebody else's, or cannot be written.
    """
    path = bundle.with_name(_README)
    before = _own_text(path)
    if before is None:
        return None, [f"{path} is not bundler's, and was left as it is"]
    told = {name: how for how, name in _TOLD.findall(before) if _is_there(path.with_name(name))}
    told[bundle.name] = _REPAIR if repairs else ""
    text = f"{_FIRST_LINE}\n\n"
    if bundle.with_name(INSTALLER).is_dir():
        text += (
            "This installs bundler there, with the place of this folder for FOLDER:\n\n"
            f"    sh FOLDER/{INSTALLER}/install.sh\n\n"
        )
    for how, words in _HOW.items():
        if commands := [_UNPACK.format(how, name) for name in told if told[name] == how]:
            text += "\n".join([words, "", *commands, "    source offline.env", "", ""])
    text += (
        "bundler inspect shows what is in a bundle, bundler verify whether all of it is right.\n"
    )
    try:
        write_text(path, text, "--output")
    except TargetError as error:
        return None, [f"there is no {_README}: {error}"]
    return path, []


def _own_text(path: Path) -> str | None:
    """What is in a README of bundler's own, nothing if there is none; None if it is another's."""
    try:
        text = "" if path.is_symlink() else start_of(path, _LARGEST).decode(errors="replace")
    except FileNotFoundError:
        return ""
    except OSError:
        return None
    return text if text.startswith(f"{_FIRST_LINE}\n") else None


def _is_there(bundle: Path) -> bool:
    return bundle.exists() or bundle.with_name(bundle.name + LIST_SUFFIX).exists()


def settle(folder: Path) -> None:
    """Return when nothing is left to be written to the disk of `folder`. Raises TargetError."""
    with told(folder, "--output"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not sync_disk(handle):
                os.sync()
        finally:
            os.close(handle)
