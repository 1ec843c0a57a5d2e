"""Caches that this user cannot write to: what the libraries need beside them.

Models load from a read-only cache as they are. But transformers copies the code that comes with a
model below HF_HOME (transformers/dynamic_module_utils.py), and the datasets library makes a lock in
HF_DATASETS_CACHE for everything that it loads (datasets/builder.py).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from bundler.disk import existing, start_of
from bundler.environment import HIDING, Roots
from bundler.permission import told

_LARGEST = 1 << 20
"""Bytes of a dataset_info.json that is looked into."""


def with_own_places(roots: Roots) -> Roots:
    """`roots`, and folders of this user for what libraries write where these are read-only.

    The same, if they are not, or if the user has no folder for caches to write to either.
    """
    caches = Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"))
    if not caches.is_absolute() or not _can_write(caches):
        return roots
    if _lacks_modules(roots):
        roots = replace(roots, modules=caches / "huggingface" / "modules")
    if _lacks_datasets(roots):
        place = hashlib.sha256(os.fsencode(roots.datasets)).hexdigest()[:16]
        roots = replace(roots, dataset_links=caches / "bundler" / "datasets" / place)
    return roots


def offline(environ: Mapping[str, str], roots: Roots) -> dict[str, str]:
    """`environ` as it is after `source offline.env`, for a process that is about to start.

    Makes the folders of this user that read-only caches need. Raises TargetError.
    """
    roots = with_own_places(roots)
    link_datasets(roots)
    kept = {name: value for name, value in environ.items() if name not in HIDING}
    return {**kept, **roots.variables()}


def lacks_places(roots: Roots) -> bool:
    """Whether libraries would write where this user cannot."""
    return _lacks_modules(roots) or _lacks_datasets(roots)


def _lacks_modules(roots: Roots) -> bool:
    there = os.path.isdir(roots.hf_home)
    return there and roots.modules is None and not _can_write(roots.hf_home / "modules")


def _lacks_datasets(roots: Roots) -> bool:
    there = os.path.isdir(roots.hf_home) or os.path.isdir(roots.datasets)
    return there and roots.dataset_links is None and not _can_write(roots.datasets)


def link_datasets(roots: Roots) -> None:
    """Make `roots.dataset_links` lead to every dataset that is prepared in `roots.datasets`.

    Links of datasets that are gone go too; what the library has put there itself is left alone.
    Raises TargetError.
    """
    links = roots.dataset_links
    if links is None:
        return
    with told(links, "XDG_CACHE_HOME"):
        links.mkdir(parents=True, exist_ok=True)
        prepared = set(_prepared(roots.datasets))
        for link in links.iterdir():
            target = roots.datasets / link.name
            if link.is_symlink() and link.readlink() == target and target not in prepared:
                link.unlink(missing_ok=True)
        for folder in prepared:
            with suppress(FileExistsError):
                (links / folder.name).symlink_to(folder)


def _prepared(datasets: Path) -> Iterator[Path]:
    """The folders of datasets that are known by a name.

    Not those of tables that were read from files: they bear the name of the reader, such as `csv`,
    and the library must be able to add to them.
    """
    for folder in datasets.glob("*"):
        with suppress(StopIteration, OSError, ValueError, AttributeError, RecursionError):
            info = json.loads(start_of(next(folder.glob("*/*/*/dataset_info.json")), _LARGEST))
            if info.get("builder_name") != folder.name:
                yield folder


def _can_write(path: Path) -> bool:
    """Whether this user can write to the folder `path`, or make it."""
    place = existing(path)
    return os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK)
