"""A bundle of a model of the Hub, without a network.

It is packed from a cache such as huggingface_hub leaves: to download 100,000 files takes minutes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from benchmarks.runs import Settings, environment, files_below, note, shell, told

COMMIT = "0123456789" * 4


def repository_bundle(settings: Settings, name: str, data: Path) -> Path:
    """The bundle of the model `name`, ORG/NAME, that has the files of `data`."""
    work = settings.folder / "repository"
    _fill_cache(work / f"models--{name.replace('/', '--')}", data)
    bundle = settings.folder / "repository.tar.zst"
    run = shell(
        f'bundler pack "{name}" --all-files --offline -o "{bundle}" --store store',
        work,
        environment(settings.folder / "home", {"HF_HUB_CACHE": str(work)}),
    )
    note(f"packed {name}: {told(run)}")
    shutil.rmtree(work)
    return bundle


def _fill_cache(repository: Path, data: Path) -> None:
    for name in ("blobs", "refs"):
        (repository / name).mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for file in files_below(data):
        blob = repository / "blobs" / _git_blob_id(file)
        if not blob.exists():
            os.link(file, blob)
        link = repository / "snapshots" / COMMIT / file.relative_to(data)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))


def _git_blob_id(file: Path) -> str:
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
