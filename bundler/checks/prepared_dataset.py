"""The prepared form of a dataset: what `load_dataset("org/name")` reads without a network.

Where it looks, and for what, is in datasets: `packaged_modules/cache/cache.py`, `naming.py` (how a
name becomes that of a folder) and `splits.py` (what dataset_info.json says of its files).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bundler.checks import Found, again_without
from bundler.disk import entries, start_of
from bundler.documents import json_in
from bundler.environment import Roots
from bundler.lookups import Repository
from bundler.remote import SMALL

_INFO = "dataset_info.json"


def find_prepared(wanted: Repository, spec: str, roots: Roots) -> Found:
    """What there is of it. Not there at all: nothing is found, and no fault."""
    found = Found(spec, (wanted.name,))
    folder = roots.datasets / _folder(wanted.name)
    for config in _folders(folder):
        prepared = [inner for version in _folders(config) for inner in _folders(version)]
        documents = {inner: _document(found, inner / _INFO) for inner in prepared}
        # The library reads all of these to find the one that was prepared last, and opens that.
        if documents and None not in documents.values():
            last = max(prepared, key=lambda inner: inner.stat().st_mtime_ns)
            _add(found, last, last.relative_to(folder).as_posix(), documents[last] or {})
    return found


def _folders(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if os.path.isdir(path)]


def _folder(name: str) -> str:
    *org, last = name.split("/")
    last = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", last)
    last = re.sub(r"([a-z\d])([A-Z])", r"\1_\2", last)
    return "___".join([*org, last.lower()])


def _document(found: Found, path: Path) -> dict[str, Any] | None:
    """What dataset_info.json says; None, with a fault noted, if it is none."""
    try:
        document = json_in(start_of(path, SMALL * 16))
        if isinstance(document, dict) and isinstance(document.get("splits"), dict):
            return document
    except FileNotFoundError:
        found.missing(f"{path} is not there", again_without(path.parent))
        return None
    except PermissionError:
        found.closed(path)
        return None
    except OSError:
        pass
    found.damaged(f"{path} is not what it should be", again_without(path))
    return None


def _add(found: Found, folder: Path, inner: str, document: dict[str, Any]) -> None:
    found.add(f"{inner}/{_INFO}", folder / _INFO)
    for name in _arrows(document):
        found.add(f"{inner}/{name}", folder / name)


def _arrows(info: dict[str, Any]) -> Iterator[str]:
    """The tables of one config, by their names."""
    for split, facts in info["splits"].items():
        shards = facts.get("shard_lengths") if isinstance(facts, dict) else None
        count = len(shards) if isinstance(shards, list) else 1
        stem = f"{info.get('dataset_name')}-{split}"
        if count <= 1:
            yield f"{stem}.arrow"
        else:
            yield from (f"{stem}-{number:05d}-of-{count:05d}.arrow" for number in range(count))
