"""What several files of tests need and nobody changes, made once for all processes of a run.

with made_once("vision") as folder:
    if not (folder / "models").exists():
        ...                             # fill it; nobody else does at the same time
    shutil.copytree(folder / "models", mine)
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

_place: list[Path] = []


def set_place(folder: Path) -> None:
    """Where all processes of this run keep it."""
    _place[:] = [folder]


@contextmanager
def made_once(name: str) -> Iterator[Path]:
    """The folder of that name, empty at first, for one process at a time; scripts share nothing."""
    if not _place:
        with TemporaryDirectory() as alone:
            yield Path(alone)
        return
    folder = _place[0] / name
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f"{name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
