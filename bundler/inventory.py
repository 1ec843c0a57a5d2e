"""What receipts say is installed, and whether it still is."""

from __future__ import annotations

import stat
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bundler.digest import Digest
from bundler.environment import Roots, find_roots
from bundler.receipt import InstalledModel, Place
from bundler.receipt_folder import read_receipts


@dataclass(frozen=True, slots=True)
class Standing:
    """One model of one bundle, and what of it is not there as it was installed."""

    bundle: Digest
    model: InstalledModel
    missing: tuple[Path, ...]
    """Files that are gone or of another size, links and texts that are gone."""

    @property
    def is_whole(self) -> bool:
        """Whether everything is there, as far as existence and size tell."""
        return not self.missing


@dataclass(frozen=True, slots=True)
class Inventory:
    """What is installed. Sizes in bytes."""

    roots: Roots
    standings: tuple[Standing, ...]
    size: int
    """Of all files, those that several models share counted once."""

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, for programs."""
        return {
            "bundles": [
                {
                    "bundle": str(bundle),
                    "models": [_standing_to_json(s, self.roots) for s in standings],
                }
                for bundle, standings in self.by_bundle().items()
            ],
            "size": self.size,
        }

    def by_bundle(self) -> Mapping[Digest, Sequence[Standing]]:
        """The models of each bundle."""
        bundles: dict[Digest, list[Standing]] = defaultdict(list)
        for standing in self.standings:
            bundles[standing.bundle].append(standing)
        return bundles


def installed(roots: Roots | None = None) -> Inventory:
    """What bundler installed below `roots`, by default those that the libraries use here.

    Looks at existence and size only; `verify_installed` compares content. Raises TargetError if
    the receipts cannot be read.
    """
    roots = roots or find_roots()
    receipts = tuple(read_receipts(roots.hf_home))

    @cache
    def is_missing(place: Place, size: int | None) -> bool:
        return not _stands(roots.kept_at(place[0]) / place[1], size)

    standings = []
    for receipt in receipts:
        for model in receipt.models:
            sizes: list[tuple[Place, int | None]] = [
                (file.place, None if model.may_be_edited(file) else file.blob.size)
                for file in model.files
            ]
            sizes += [(pointer.place, None) for pointer in (*model.links, *model.texts)]
            gone = [place for place, size in sizes if is_missing(place, size)]
            paths = tuple(roots.kept_at(root) / path for root, path in gone)
            standings.append(Standing(receipt.bundle, model, paths))
    files = {f.place: f.blob.size for r in receipts for model in r.models for f in model.files}
    return Inventory(roots, tuple(standings), sum(files.values()))


def _stands(path: Path, size: int | None) -> bool:
    """Whether something is there, links followed, and a file of that size if there is one."""
    try:
        state = path.stat()
    except OSError:
        return False
    return size is None or (stat.S_ISREG(state.st_mode) and state.st_size == size)


def _standing_to_json(standing: Standing, roots: Roots) -> dict[str, Any]:
    model = standing.model
    return {
        "spec": model.spec,
        "source": model.source,
        "name": model.name,
        "aliases": list(model.aliases),
        "specs": list(model.specs),
        "revision": model.revision,
        "commit_hash": model.commit_hash,
        "layout": model.layout,
        "size": model.size,
        "roots": sorted(str(roots.kept_at(root)) for root in {root for root, _ in model.places}),
        "whole": standing.is_whole,
        "missing": [str(path) for path in standing.missing],
    }
