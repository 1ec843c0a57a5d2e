"""Whether it fits, before anything is written."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from bundler.disk import existing
from bundler.errors import TargetError, amount
from bundler.file_limit import check_file
from bundler.layouts.placement import File
from bundler.permission import told


def check_space(missing: Mapping[Path, Sequence[File]]) -> None:
    """Raise TargetError if the files missing below each root do not fit."""
    needed: dict[int, int] = defaultdict(int)
    for root, files in missing.items():
        place = existing(root)
        block = os.statvfs(place).f_frsize
        device = place.stat().st_dev
        needed[device] += sum(-(-file.blob.size // block) * block for file in files)
        with told(root, "--root"):
            check_file(root, max((file.blob.size for file in files), default=0))
        free = free_space(root)
        if needed[device] > free:
            raise TargetError(
                f"{root} has {amount(free)} free, and {amount(needed[device])} are needed: "
                "free some space, choose another folder with --root, or fewer models with --only"
            )


def free_space(path: Path) -> int:
    """Bytes free where `path` is or would be."""
    return shutil.disk_usage(existing(path)).free


def same_disk(one: Path, other: Path) -> bool:
    """Whether two paths are or would be on one file system."""
    return existing(one).stat().st_dev == existing(other).stat().st_dev
