"""The prepared form of a dataset: what `load_dataset("org/name")` reads without a network.

Where it looks, and for what, is in datasets: `packaged_modules/cache/cache.py`, `naming.py` (how a
name becomes that of a folder) and `splits.py` (what dataset_info.json says of its files).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from bundler.checks import AGAIN, Found
from bundler.environment import Roots
from bundler.lookups import Repository

_INFO = "dataset_info.json"


def find_prepared(wanted: Repository, spec: str, roots: Roots) -> Found:
    """What there is of it. Not there at all: nothing is found, and no fault."""
    found = Found(spec, (wanted.name,))
    folder = roots.datasets / _folder(wanted.name)
    for info in sorted(folder.glob(f"*/*/*/{_INFO}")):
        inner = info.relative_to(folder).as_posix()
        try:
            document = json.loads(info.read_text("utf-8"))
            arrows = list(_arrows(document))
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            found.damaged(f"{info} is not what it should be", AGAIN)
            continue
        found.files[inner] = info
        for name in arrows:
            found.add(str(Path(inner).parent / name), info.parent / name)
    return found


def _folder(name: str) -> str:
    *org, last = name.split("/")
    last = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", last)
    last = re.sub(r"([a-z\d])([A-Z])", r"\1_\2", last)
    return "___".join([*org, last.lower()])


def _arrows(info: dict[str, dict[str, dict[str, object]]]) -> Iterator[str]:
    """The tables of one config, by their names."""
    for split, facts in info["splits"].items():
        shards = facts.get("shard_lengths")
        count = len(shards) if isinstance(shards, list) else 1
        stem = f"{info['dataset_name']}-{split}"
        if count == 1:
            yield f"{stem}.arrow"
        else:
            yield from (f"{stem}-{number:05d}-of-{count:05d}.arrow" for number in range(count))
