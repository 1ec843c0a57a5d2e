"""Some GB of weights: packed, unpacked, verified, beside tar and a hash, and the machine itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.ceiling import Ceiling
from benchmarks.contestants import (
    BORG,
    BUNDLER,
    BUNDLER_ONCE,
    CASYNC,
    RESTIC,
    TAR_OPENSSL,
    TAR_SHA256SUM,
    UNSYNCED,
)
from benchmarks.results import Row, faster, share
from benchmarks.rounds import Figures, rounds
from benchmarks.runs import Settings, note, program, size_of

HASHED = {
    "pack": ((TAR_SHA256SUM, 4.5), (TAR_OPENSSL, 2.5)),
    "unpack": ((TAR_SHA256SUM, 5.0), (TAR_OPENSSL, 2.6)),
}
"""How many times as fast as these bundler should be."""


def weights(settings: Settings, document: dict[str, Any]) -> list[Row]:
    """Against tar, zstd and a hash of every file, and against what the machine takes at best."""
    data = weights_of(settings, document)
    level = default_level()
    measured: list[dict[str, Any]] = []

    def measure_ceiling() -> None:
        measured.append(json.loads(program("ceiling", data, settings.folder, level)))
        note(f"the machine itself: {measured[-1]}")

    contestants = [BUNDLER, UNSYNCED, TAR_SHA256SUM, TAR_OPENSSL]
    figures = rounds(contestants, data, settings, each_round=measure_ceiling)
    ceiling = Ceiling.median(measured)
    document["figures"]["weights"] = figures.to_json()
    document["ceiling"] = {"level": level, **ceiling.to_json()}
    return [
        *(
            faster(f"{step}, {_amount(settings)}", *figures.pair(step, other.name), at_least)
            for step, goals in HASHED.items()
            for other, at_least in goals
        ),
        *_beside_ceiling(settings, figures, ceiling, size_of(data)),
        *_beside_itself(settings, figures),
    ]


def others(settings: Settings, document: dict[str, Any]) -> list[Row]:
    """Against restic, borg and casync."""
    programs = [RESTIC, BORG, CASYNC]
    figures = rounds([BUNDLER_ONCE, *programs], weights_of(settings, document), settings)
    document["figures"]["others"] = figures.to_json()
    return [
        faster(f"{step}, {_amount(settings)}", *figures.pair(step, other.name), at_least=3.3)
        for step in ("pack", "unpack")
        for other in programs
    ]


def weights_of(settings: Settings, document: dict[str, Any]) -> Path:
    """The folder with the weights, made by whoever asks first."""
    folder = settings.folder / "weights"
    if not folder.exists():
        folder.mkdir()
        document["weights"] = program("data", "weights", folder, settings.size)
        note(f"weights: {document['weights']}")
    return folder


def default_level() -> int:
    """The level that `bundler pack` compresses with, as its help says; else the fastest."""
    command = ["bundler", "pack", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"BUNDLER_LEVEL;\s+default:\s+(\d+)", told)
    return int(found[1]) if found else 1


def _amount(settings: Settings) -> str:
    return f"{settings.size / 1e9:g} GB"


def _beside_ceiling(
    settings: Settings, figures: Figures, ceiling: Ceiling, size: int
) -> Iterator[Row]:
    processors = os.cpu_count() or 1
    bounds = {"pack": ceiling.pack(size, processors), "unpack": ceiling.unpack(size, processors)}
    for step, bound in bounds.items():
        seconds = figures.seconds("bundler", step)
        yield faster(f"{step}, {_amount(settings)}", seconds, "the machine's ceiling", bound, 0.8)


def _beside_itself(settings: Settings, figures: Figures) -> Iterator[Row]:
    """And what is no time, or beside a part of the work."""
    amount = _amount(settings)
    bundler = partial(figures.seconds, "bundler")
    sizes = {name: size / 1e6 for name, size in figures.sizes.items()}
    tar = sizes.get(TAR_SHA256SUM.name)
    yield share(f"size, {amount}", sizes["bundler"], "tar, zstd -3", tar, "MB", 1.01)
    again, first = bundler("unpack again"), bundler("unpack")
    yield share(f"unpack again, {amount}", again, "the first time", first, "s", 0.05)
    again, packed = bundler("pack again"), bundler("pack")
    yield share(f"pack again, {amount}", again, "the first time", packed, "s", None)
    for other, at_least in (("sha256sum of the content", 1.5), ("sha256sum of the bundle", None)):
        yield faster(f"verify, {amount}", bundler("verify"), other, bundler(other), at_least)
    unsynced = figures.seconds(UNSYNCED.name, "unpack")
    yield share(f"unpack, {amount}", first, "the same without syncs", unsynced, "s", 1.15)
