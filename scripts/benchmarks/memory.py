"""The most memory that packing and unpacking take, which should not depend on how much there is."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.contestants import BUNDLER_ONCE, BUNDLER_SPARSE
from benchmarks.results import Row, limit, share
from benchmarks.rounds import Figures, rounds
from benchmarks.runs import BLOCK, Settings, files_below
from benchmarks.small import texts_of
from benchmarks.sparse import kept_sparse, sparse
from benchmarks.weights import weights_of

LIMIT = 120
"""MB."""
FLAT = 1.1
"""How much more, at most, 20 GB take than 1 GB."""


def memory(settings: Settings, document: dict[str, Any]) -> list[Row]:
    """One run each: as much weights as --size says in one file, many small files, 20 GB."""
    once = replace(settings, rounds=1)
    one = settings.folder / "one"
    one.mkdir()
    _join(weights_of(settings, document), one / "model.bin")
    figures = {f"{settings.size / 1e9:g} GB in 1 file": rounds([BUNDLER_ONCE], one, once)}
    shutil.rmtree(one)
    texts = texts_of(settings, settings.files)
    figures[f"{settings.files:,} files"] = rounds([BUNDLER_ONCE], texts, once)
    with kept_sparse(settings.folder / "here"):
        large = f"{settings.large / 1e9:g} GB"
        figures[large] = rounds([BUNDLER_SPARSE], sparse(settings), once)
    document["figures"]["memory"] = {what: each.to_json() for what, each in figures.items()}
    first, *_ = figures
    return [
        row
        for step in ("pack", "unpack")
        for row in (
            *(
                limit(f"peak memory, {step}, {what}", _peak(each, step), "MB", LIMIT)
                for what, each in figures.items()
            ),
            share(
                f"peak memory, {step}, {large}",
                _peak(figures[large], step),
                first,
                _peak(figures[first], step),
                "MB",
                FLAT,
            ),
        )
    ]


def _join(folder: Path, joined: Path) -> None:
    with open(joined, "wb") as out:
        for path in sorted(files_below(folder)):
            with open(path, "rb") as file:
                shutil.copyfileobj(file, out, BLOCK)


def _peak(figures: Figures, step: str) -> float | None:
    peak = figures.peak("bundler", step)
    return None if peak is None else peak / 1e6
