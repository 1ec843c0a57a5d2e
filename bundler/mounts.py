"""What of the caches a container must see, and where."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from bundler.environment import Roots


def mount_options(roots: Roots) -> Iterator[str]:
    """Options of `docker run` that give a container the caches at `roots`, at the same paths.

    They are for reading only, but for the folder in which the datasets library locks what it loads
    (datasets/builder.py). Folders that are not there are left out: docker would make them.
    """
    folders = sorted({roots.hf_home, roots.hub, roots.datasets, roots.torch_home})
    read: list[Path] = []
    for folder in folders:
        if os.path.isdir(folder) and not any(other in folder.parents for other in read):
            read.append(folder)
    yield from (_mount(folder, read_only=True) for folder in read)
    if roots.dataset_links or os.path.isdir(roots.datasets):
        yield _mount(roots.dataset_links or roots.datasets, read_only=False)


def _mount(folder: Path, *, read_only: bool) -> str:
    if ":" not in str(folder):
        return "-v " + quote(f"{folder}:{folder}" + ":ro" * read_only)
    place = str(folder).replace('"', '""')  # --mount takes a line of CSV.
    fields = ["type=bind", f'"src={place}"', f'"dst={place}"', *["readonly"] * read_only]
    return "--mount " + quote(",".join(fields))
