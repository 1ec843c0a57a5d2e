"""Some GB of weights: packed, unpacked, verified, beside tar and a hash, and the machine itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
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
from benchmarks.runs import Figures, Settings, note, program, rounds, size_of

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

    def ceiling_again() -> None:
        measured.append(json.loads(program("ceiling", data, settings.folder, level)))
        note(f"the machine itself: {measured[-1]}")

    contestants = [BUNDLER, UNSYNCED, TAR_SHA256SUM, TAR_OPENSSL]
    figures = rounds(contestants, data, settings, each_round=ceiling_again)
    ceiling = Ceiling.median(measured)
    document["figures"]["weights"] = figures.to_json()
    document["ceiling"] = {"level": level, **ceiling.to_json()}
    return [*_hashed(figures), *_bounds(figures, ceiling, size_of(data)), *_others(figures)]


def others(settings: Settings, document: dict[str, Any]) -> list[Row]:
    """Against restic, borg and casync."""
    data = weights_of(settings, document)
    programs = [RESTIC, BORG, CASYNC]
    figures = rounds([BUNDLER_ONCE, *programs], data, settings)
    document["figures"]["others"] = figures.to_json()
    return [
        faster(
            step,
            figures.seconds("bundler", step),
            other.name,
            figures.seconds(other.name, step),
            at_least=3.3,
        )
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


def _hashed(figures: Figures) -> list[Row]:
    return [
        faster(
            step,
            figures.seconds("bundler", step),
            other.name,
            figures.seconds(other.name, step),
            at_least,
        )
        for step, goals in HASHED.items()
        for other, at_least in goals
    ]


def _bounds(figures: Figures, ceiling: Ceiling, size: int) -> list[Row]:
    processors = os.cpu_count() or 1
    bounds = {"pack": ceiling.pack(size, processors), "unpack": ceiling.unpack(size, processors)}
    return [
        faster(step, figures.seconds("bundler", step), "the machine's ceiling", bound, 0.8)
        for step, bound in bounds.items()
    ]


def _others(figures: Figures) -> list[Row]:
    tar = TAR_SHA256SUM.name
    sizes = {name: size / 1e6 for name, size in figures.sizes.items()}
    seconds = figures.seconds
    rows = [share("size", sizes["bundler"], "tar, zstd -3", sizes.get(tar), "MB", 1.01)]
    for again, first, at_most in (
        ("pack again", "pack", None),
        ("unpack again", "unpack", 0.05),
    ):
        rows.append(
            share(again, seconds("bundler", again), first, seconds("bundler", first), "s", at_most)
        )
    for what, at_least in (("sha256sum of the content", 1.5), ("sha256sum of the bundle", None)):
        verify = seconds("bundler", "verify")
        rows.append(faster("verify", verify, what, seconds("bundler", what), at_least))
    unsynced = seconds(UNSYNCED.name, "unpack")
    rows.append(share("unpack", seconds("bundler", "unpack"), "without syncs", unsynced, "s", 1.15))
    return rows
