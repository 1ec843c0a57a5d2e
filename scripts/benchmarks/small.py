"""Many small files: packed and unpacked, and how that grows with their number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.contestants import (
    BUNDLER_ONCE,
    BUNDLER_SMALL,
    TAR_SHA256SUM,
    UNPACK_TO_HUB,
)
from benchmarks.repository import repository_bundle
from benchmarks.results import Row, faster, share
from benchmarks.rounds import rounds
from benchmarks.runs import Settings, note, program, read_all

MODEL = "bench/small"
PARTS = (4, 2)
"""Time is measured for one of so many files, too."""
LINEAR = 1.1
"""What is left to a time that should grow as the number of files does."""


def small(settings: Settings, document: dict[str, Any]) -> list[Row]:
    """Some 100,000 files of 4 KB, against tar, zstd and sha256sum; a half and a quarter of them."""
    data = texts_of(settings, settings.files)
    tar = TAR_SHA256SUM
    bundle = repository_bundle(settings, MODEL, data)
    read_all(bundle)
    figures = rounds([BUNDLER_SMALL, tar], data, settings, {"HUB": str(bundle)})
    bundle.unlink()
    document["figures"]["small"] = {str(settings.files): figures.to_json()}
    name = f"{settings.files:,} files"
    unpacked = figures.seconds(tar.name, "unpack")
    hub = figures.seconds("bundler", UNPACK_TO_HUB)
    sizes = {name: size / 1e6 for name, size in figures.sizes.items()}
    rows = [
        faster(f"pack, {name}", *figures.pair("pack", tar.name), 2),
        faster(f"unpack, {name}", *figures.pair("unpack", tar.name), 1.3),
        faster(f"{UNPACK_TO_HUB}, {name}", hub, tar.name, unpacked, 1),
        share(f"size, {name}", sizes["bundler"], "tar, zstd -3", sizes.get(tar.name), "MB", 1.05),
    ]
    for part in PARTS:
        count = settings.files // part
        note(f"{count:,} files")
        fewer = rounds([BUNDLER_ONCE], texts_of(settings, count), settings)
        document["figures"]["small"][str(count)] = fewer.to_json()
        for step in BUNDLER_ONCE.steps:
            few, many = (each.seconds("bundler", step) for each in (fewer, figures))
            at_most = part * LINEAR
            rows.append(share(f"{step}, {name}", many, f"{count:,} files", few, "s", at_most))
    return rows


def texts_of(settings: Settings, count: int) -> Path:
    """The folder with `count` small files, made by whoever asks first."""
    folder = settings.folder / f"{count}-texts"
    if not folder.exists():
        note(f"made {program('data', 'texts', folder, count)}")
    return folder
