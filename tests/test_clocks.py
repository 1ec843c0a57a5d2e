"""Clocks that were never set, or jump: no time of change, however far off, is in the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from disk_calls import SKIP, SYNCS, Call, Commands, Verdict
from loopback_hub import LoopbackHub
from memory_source import commit_hash
from trees import stamps, tree
from unlucky import HUB, NEW, OLD, found_in, merging

TIMES = {"before all time": -(1 << 31), "in 1970": 0, "in the future": 13_000_000_000}
"""Seconds since 1970, which file systems can keep."""


def date(path: Path, time: int) -> None:
    os.utime(path, (time, time), follow_symlinks=False)


class Jumping:
    """Lets each file be of another time, one after the other, as soon as it has its name."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, call: Call) -> Verdict:
        if call.name == "rename" and call.paths[0].is_file():
            date(call.paths[0], [*TIMES.values()][self._count % len(TIMES)])
            self._count += 1
        return SKIP if call.name in SYNCS else None


@pytest.mark.parametrize("time", [*TIMES.values(), None], ids=[*TIMES, "jumping"])
def test_a_cache_is_merged_into_kept_verified_and_cleared(
    time: int | None, commands: Commands, tmp_path: Path, hub: LoopbackHub
) -> None:
    scene = merging(commands, tmp_path, hub)
    scene.reset()
    if time is not None:
        for path in (scene.folder, *(scene.folder / name for name in tree(scene.folder))):
            date(path, time)
    assert scene.again(Jumping() if time is None else None).code == 0
    scene.assert_finished()
    before = stamps(scene.folder)
    assert scene.again().code == 0
    assert stamps(scene.folder) == before
    assert commands.run("verify", "--root", ".", cwd=scene.folder).code == 0
    assert commands.run("remove", "org/tiny", "--root", ".", cwd=scene.folder).code == 0
    assert found_in(scene.folder / HUB, "org/tiny", "main") == OLD
    assert found_in(scene.folder / HUB, "org/tiny", commit_hash(NEW)) is None


def test_bundles_hold_no_times(commands: Commands, tmp_path: Path) -> None:
    bundles = []
    (tmp_path / "model").mkdir()
    for number, time in enumerate(TIMES.values()):
        (tmp_path / "model/weights.pth").write_bytes(b"weights")
        for path in (tmp_path / "model/weights.pth", tmp_path / "model"):
            date(path, time)
        arguments = ("pack", "file:model", "-o", f"{number}.tar.zst", "--store", f"store-{number}")
        assert commands.run(*arguments, cwd=tmp_path).code == 0
        bundles.append((tmp_path / f"{number}.tar.zst").read_bytes())
    assert bundles == [bundles[0]] * len(TIMES)
