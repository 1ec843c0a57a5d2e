"""The power goes at any call: what was there loads, nothing is half there, and work goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from disk_calls import KILL, At, Commands
from loopback_hub import LoopbackHub
from power_cut import Disk, State
from unlucky import Scene, merging

ROUNDS = {"merging": 2, "unpacking": 9, "removing": 1, "removing all": 5}
"""Every how many calls of each scene the power goes; scripts/kill-points has all."""


def states(disk: Disk, number: int) -> Iterator[State]:
    """What a disk may hold, whether it keeps a journal or is sure of what was synced alone."""
    for journal in (True, False):
        yield from disk.states(number, journal=journal)


def noted(scene: Scene) -> Disk:
    """What an undisturbed run does to the disk."""
    scene.reset()
    disk = Disk(scene.folder)
    assert scene.again(disk.note).code == 0
    return disk


@pytest.mark.parametrize(
    ("scene", "every"), ROUNDS.items(), indirect=["scene"], ids=lambda value: str(value)
)
def test_all_that_is_found_is_whole_and_the_next_run_finishes(scene: Scene, every: int) -> None:
    disk = noted(scene)
    seen: set[State] = set()
    faults = {}
    for number in range(0, disk.calls + 1, every):
        for state in states(disk, number):
            if state not in seen:
                seen.add(state)
                state.put(scene.folder)
                try:
                    scene.assert_sound()
                    scene.finish()
                except AssertionError as fault:
                    faults[number] = str(fault)[:600]
    assert not faults, "\n".join(f"{at}\n    {fault}" for at, fault in faults.items())
    assert len(seen) > disk.calls / every / 2


@pytest.mark.parametrize("scene", ["merging", "unpacking"], indirect=True)
def test_what_was_told_as_unpacked_is_there(scene: Scene) -> None:
    disk = noted(scene)
    for state in states(disk, disk.calls):
        state.put(scene.folder)
        scene.assert_visible()


@pytest.mark.parametrize("number", [12, 20])
def test_what_a_killed_run_left_is_synced_by_the_next(
    number: int, commands: Commands, tmp_path: Path, hub: LoopbackHub
) -> None:
    scene = merging(commands, tmp_path, hub)
    assert scene.run(At(number, KILL)).code == -9
    disk = Disk(scene.folder, "*/.locks/*")
    assert scene.again(disk.note).code == 0
    for state in states(disk, disk.calls):
        state.put(scene.folder)
        scene.assert_visible()


@pytest.mark.parametrize("scene", ["packing"], indirect=True)
def test_a_bundle_is_the_older_or_whole_and_packed_by_the_next_run(scene: Scene) -> None:
    # The store is not synced: what the power took of it is seen when it is read, and fetched.
    older, whole = (state["bundle.tar.zst"][1] for state in (scene.before, scene.after))
    bundle = scene.folder / "bundle.tar.zst"
    disk = noted(scene)
    seen: set[State] = set()
    for number in (*range(0, disk.calls, 5), disk.calls):
        for state in states(disk, number):
            if state not in seen:
                seen.add(state)
                state.put(scene.folder)
                assert bundle.read_bytes() == whole or (
                    number < disk.calls and bundle.read_bytes() == older
                )
                assert scene.again().code == 0
                assert bundle.read_bytes() == whole
