"""Many small files: packed and unpacked, and how that grows with their number."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from benchmarks.contestants import BUNDLER_ONCE, BUNDLER_SMALL, TAR_SHA256SUM
from benchmarks.results import Row, faster, share
from benchmarks.runs import Settings, environment, files_below, note, program, rounds, shell, told

MODEL = "bench/small"
COMMIT = "0123456789" * 4
PARTS = (4, 2)
"""Time is measured for one of so many files, too."""


def small(settings: Settings, document: dict[str, Any]) -> list[Row]:
    """Some 100,000 files of 4 KB, against tar, zstd and sha256sum; a half and a quarter of them."""
    data = texts_of(settings, settings.files)
    hub = _hub_bundle(settings, data)
    tar = TAR_SHA256SUM
    figures = rounds([BUNDLER_SMALL, tar], data, settings, {"HUB": str(hub)})
    document["figures"]["small"] = {str(settings.files): figures.to_json()}
    hub.unlink()
    rows = [
        faster(
            f"{settings.files:,} files, {step}",
            figures.seconds("bundler", step),
            tar.name,
            figures.seconds(tar.name, step.split()[0]),
            at_least,
        )
        for step, at_least in (("pack", 2), ("unpack", 1.3), ("unpack to the hub cache", 1))
    ]
    sizes = {name: size / 1e6 for name, size in figures.sizes.items()}
    rows.append(
        share("size of it", sizes["bundler"], "tar, zstd -3", sizes.get(tar.name), "MB", 1.05)
    )
    for part in PARTS:
        count = settings.files // part
        note(f"{count:,} files")
        fewer = rounds([BUNDLER_ONCE], texts_of(settings, count), settings)
        document["figures"]["small"][str(count)] = fewer.to_json()
        rows += [
            share(
                f"{settings.files:,} files, {step}",
                figures.seconds("bundler", step),
                f"{count:,} files",
                fewer.seconds("bundler", step),
                "s",
                part * 1.1,
            )
            for step in ("pack", "unpack")
        ]
    return rows


def texts_of(settings: Settings, count: int) -> Path:
    """The folder with `count` small files, made by whoever asks first."""
    folder = settings.folder / f"{count}-texts"
    if not folder.exists():
        note(f"made {program('data', 'texts', folder, count)}")
    return folder


def _hub_bundle(settings: Settings, data: Path) -> Path:
    """A bundle of a repository of the hub that has the files of `data`.

    Packed from a cache as huggingface_hub leaves it: to download them takes many minutes.
    """
    repository = settings.folder / "cache" / f"models--{MODEL.replace('/', '--')}"
    for name in ("blobs", "refs"):
        (repository / name).mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for file in files_below(data):
        content = file.read_bytes()
        blob = (
            repository / "blobs" / hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        )
        os.link(file, blob)
        link = repository / "snapshots" / COMMIT / file.relative_to(data)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    bundle, store = settings.folder / "hub.tar.zst", settings.folder / "store"
    run = shell(
        f'bundler pack {MODEL} --all-files --offline -o "{bundle}" --store "{store}"',
        settings.folder,
        environment(settings.folder / "home", {"HF_HUB_CACHE": str(settings.folder / "cache")}),
    )
    note(f"packed a repository with these files: {told(run)}")
    for folder in (store, settings.folder / "cache"):
        shutil.rmtree(folder)
    return bundle
