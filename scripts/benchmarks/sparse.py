"""20 GB that take next to nothing on a disk."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.runs import Settings, files_below

FILES = 10
HEAD = 4096
"""Bytes at the start of each file, which make it another than the rest; all that follows is 0."""
OFTEN = 0.2
"""Seconds between two looks."""


def sparse(settings: Settings) -> Path:
    """A folder of some large files without anything in them, made by whoever asks first."""
    folder = settings.folder / "large"
    if not folder.exists():
        folder.mkdir()
        for number in range(FILES):
            with open(folder / f"{number}.bin", "wb") as file:
                file.write(bytes([number + 1]) * HEAD)
                file.truncate(settings.large // FILES)
    return folder


@contextmanager
def kept_sparse(folder: Path) -> Iterator[None]:
    """Give back the disk below the large files that others write into `folder` meanwhile.

    They must be copies of those of `sparse`: their content stays the same.
    """
    done = threading.Event()

    def dig() -> None:
        while not done.wait(OFTEN):
            with suppress(FileNotFoundError):
                for file in files_below(folder):
                    _dig(file)

    thread = threading.Thread(target=dig)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _dig(file: Path) -> None:
    with suppress(FileNotFoundError):
        state = file.lstat()
        if state.st_blocks * 512 > 64 << 20:
            where = ["--offset", str(HEAD), "--length", str(state.st_size - HEAD)]
            # It may be renamed meanwhile.
            command = ["fallocate", "--punch-hole", *where, str(file)]
            subprocess.run(command, stderr=subprocess.DEVNULL, check=False)
