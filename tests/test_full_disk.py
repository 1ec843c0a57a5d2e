"""No room, no permission, a disk that fails: told in a line, and nothing is half done."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from bundle_builder import (
    END,
    blob_name,
    entry,
    file_record,
    frame,
    header,
    manifest_of,
    member,
    model_record,
    seek_table,
)
from disk_calls import KILL, At, Call, Commands, Refuse, Verdict
from loopback_hub import LoopbackHub
from memory_source import commit_hash
from unlucky import HUB, NEW, OLD, OTHER, SCENES, Scene, found_in, merging, removing

NEEDING_ROOM = ("open", "write", "mkdir", "symlink", "link", "rename", "fsync")
"""Calls that can fail for want of room."""


class Refused(At):
    """From the call of a number on, calls are refused: all, or those of the names given."""

    def __init__(self, number: int, reason: int, names: Sequence[str] | None = None) -> None:
        super().__init__(number, Refuse(reason), lasting=True)
        self._names = names

    def __call__(self, call: Call) -> Verdict:
        verdict = super().__call__(call)
        is_spared = self._names is not None and call.name not in self._names
        return None if isinstance(verdict, Refuse) and is_spared else verdict


REASONS = {
    "no space": (errno.ENOSPC, r"no space left for {}.*, whose disk has .* free"),
    "a quota": (errno.EDQUOT, r"no space left for {}.* \(your quota\)"),
    "no permission": (errno.EACCES, r"not allowed to write {}"),
    "read-only": (errno.EROFS, r"not allowed to write {}"),
    "a failing disk": (errno.EIO, r"the disk of {}.* fails \(Input/output error\)"),
}


@pytest.mark.parametrize(
    ("scene", "reason", "every"),
    [
        ("merging", "no space", 1),
        ("merging", "a quota", 13),
        ("merging", "no permission", 11),
        ("merging", "read-only", 9),
        ("merging", "a failing disk", 7),
        ("unpacking", "no space", 13),
        ("unpacking", "a failing disk", 31),
        ("removing", "read-only", 9),
        ("removing", "a failing disk", 7),
        ("packing", "no space", 4),
        ("packing", "no permission", 15),
        ("packing", "a failing disk", 7),
    ],
    indirect=["scene"],
)
def test_from_any_call_on_it_is_told_and_does_no_harm(
    scene: Scene, reason: str, every: int
) -> None:
    number, said = REASONS[reason]
    needing = NEEDING_ROOM if number in (errno.ENOSPC, errno.EDQUOT) else None
    faults = {}
    for first in range(0, scene.calls, every):
        refused = Refused(first, number, needing)
        ran = scene.run(refused)
        try:
            *lines, note = ran.err.splitlines() or [""]
            lines = lines if "not fetched again" in note else [*lines, note]
            if ran.code:
                place = re.escape(str(scene.folder))
                assert (ran.code, len(lines)) == (6, 1), ran.err
                assert re.search(f"cannot use the store {place}|{said.format(place)}", ran.err)
            scene.assert_sound()
            if needing and scene.only_drafted(refused.calls):
                scene.assert_untouched()
            scene.finish()
        except AssertionError as fault:
            faults[f"{first}: {refused.calls[-1]}"] = str(fault)[:600]
    assert not faults, "\n".join(f"{at}\n    {fault}" for at, fault in faults.items())


def test_a_disk_that_failed_once_is_not_one_without_links(
    commands: Commands, tmp_path: Path, hub: LoopbackHub
) -> None:
    scene = merging(commands, tmp_path, hub)
    at = At()
    assert scene.run(at).code == 0
    first = [call.name for call in at.calls].index("symlink")
    if scene.run(At(first, Refuse(errno.EIO))).code == 0:
        scene.assert_finished()


def test_a_file_that_is_too_large_for_its_file_system_is_told(
    commands: Commands, tmp_path: Path, hub: LoopbackHub
) -> None:
    """As one of 4 GiB is for FAT, however the bundle was split."""
    scene = merging(commands, tmp_path, hub)
    ran = scene.run(Refused(0, errno.EFBIG, ["write"]))
    said = f"a file below {scene.folder}.* would be larger than its file system can hold"
    assert (ran.code, ran.err.count("\n")) == (6, 1)
    assert re.search(f"{said}.*: choose another place with --root$", ran.err), ran.err
    scene.assert_sound()
    scene.finish()


@pytest.mark.parametrize("plan", [[], ["--dry-run"]], ids=["unpack", "dry run"])
def test_a_file_that_is_too_large_for_fat_is_told_before_anything_is_written(
    plan: list[str], commands: Commands, tmp_path: Path
) -> None:
    size, zeros = 4 << 30, bytes(4 << 20)
    record = file_record("model.safetensors", b"", size=size)
    head = member("manifest.json", manifest_of(model_record(files=[record])))
    frames = [frame(head), frame(header(blob_name(b""), size)), frame(zeros), frame(END)]
    count = size // len(zeros)
    contents = [len(head), 512, *[len(zeros)] * count, len(END)]
    frames[2:3] *= count
    table = seek_table([*map(entry, frames, contents)])
    (tmp_path / "b.tar.zst").write_bytes(b"".join(frames) + table)
    (tmp_path / "stick").mkdir()
    written = []

    def as_fat(call: Call) -> Verdict:
        if tmp_path / "stick" not in (call.paths[0], *call.paths[0].parents):
            return None
        if call.name == "write":
            written.append(call)
            return Refuse(errno.EIO)
        beyond = call.name == "seek" and call.arguments[1] >= size
        return Refuse(errno.EINVAL) if beyond else None

    request = ("unpack", "b.tar.zst", "--root", "stick/caches", *plan)
    done = commands.run(*request, cwd=tmp_path, decide=as_fat, reads=True)
    assert (done.code, done.err.count("\n"), written) == (6, 1, []), done.err
    assert "would be larger than its file system can hold (FAT: 4 GiB)" in done.err
    assert "choose another place with --root" in done.err
    assert list((tmp_path / "stick").iterdir()) == []


class TestDisksOfAnySize:
    """Real ones: what does not fit is told, before or in the middle."""

    @pytest.mark.parametrize(
        ("name", "rooms"),
        [("merging", range(14)), ("unpacking", range(0, 700, 29)), ("packing", range(0, 700, 31))],
        ids=["merging", "unpacking", "packing"],
    )
    def test_of_so_many_pages(
        self, name: str, rooms: range, commands: Commands, hub: LoopbackHub,
        small_disk: Callable[[str], Path],
    ) -> None:  # fmt: skip
        disk = small_disk("size=64m")
        scene = SCENES[name](commands, disk, hub)
        codes = []
        for room in rooms:
            scene.reset()
            state = os.statvfs(disk)
            small_disk(f"size={(state.f_blocks - state.f_bfree + room) * state.f_frsize}")
            ran = scene.again()
            small_disk("size=64m")
            codes.append(ran.code)
            assert (ran.code == 0) == (ran.err == "")
            assert ran.code == 0 or re.search(f"{disk}.* (free|space)", ran.err), ran.err
            scene.assert_sound()
            scene.finish()
        assert codes == sorted(codes, reverse=True)
        assert set(codes) == {0, 6}

    @pytest.mark.parametrize(
        ("name", "rooms"),
        [
            ("merging", range(0, 34, 3)),
            ("unpacking", range(0, 400, 40)),
            ("removing", range(8)),
            ("packing", range(0, 22, 3)),
        ],
        ids=["merging", "unpacking", "removing", "packing"],
    )
    def test_of_so_many_names(
        self, name: str, rooms: range, commands: Commands, hub: LoopbackHub,
        small_disk: Callable[[str], Path],
    ) -> None:  # fmt: skip
        disk = small_disk("nr_inodes=9000")
        scene = SCENES[name](commands, disk, hub)
        codes = []
        for room in rooms:
            scene.reset()
            state = os.statvfs(disk)
            small_disk(f"nr_inodes={state.f_files - state.f_ffree + room}")
            ran = scene.again()
            small_disk("nr_inodes=9000")
            codes.append(ran.code)
            told = f"whose disk can hold no more files|cannot use the store {disk}"
            assert ran.code == 0 or re.search(told, ran.err), ran.err
            scene.assert_sound()
            scene.finish()
        assert codes == sorted(codes, reverse=True)
        assert codes[-1] == 0


class TestRemovingFromAFullDisk:
    """What makes room works where there is none."""

    @pytest.fixture
    def scene(
        self, commands: Commands, hub: LoopbackHub, small_disk: Callable[[str], Path]
    ) -> Scene:
        return removing(commands, small_disk("size=16m"), hub)

    @staticmethod
    def fill(scene: Scene, small_disk: Callable[[str], Path]) -> None:
        """Make the folder what it was before, on a disk that can hold nothing more."""
        small_disk("size=16m,nr_inodes=9000")
        scene.reset()
        state = os.statvfs(scene.folder)
        pages, names = state.f_blocks - state.f_bfree, state.f_files - state.f_ffree
        small_disk(f"size={pages * state.f_frsize},nr_inodes={names}")
        with pytest.raises(OSError, match="No space"):
            (scene.folder / "one more").touch()

    def test_it_is_removed(self, scene: Scene, small_disk: Callable[[str], Path]) -> None:
        self.fill(scene, small_disk)
        ran = scene.again()
        assert (ran.code, ran.err) == (0, "")
        scene.assert_finished()

    def test_killed_at_any_call_what_stays_loads(
        self, scene: Scene, small_disk: Callable[[str], Path]
    ) -> None:
        self.fill(scene, small_disk)
        at = At()
        assert scene.again(at).code == 0
        hub = scene.folder / HUB
        for number in range(len(at.calls)):
            self.fill(scene, small_disk)
            assert scene.again(At(number, KILL)).code == -9
            assert found_in(hub, "org/tiny", commit_hash(OLD)) == OLD
            assert found_in(hub, "org/other", "main") == OTHER
            assert found_in(hub, "org/tiny", "main") in (NEW, OLD)
            scene.finish()

    def test_the_store_is_cleared(
        self, commands: Commands, small_disk: Callable[[str], Path]
    ) -> None:
        disk = small_disk("size=16m")
        (disk / "weights").write_bytes(bytes(100_000))
        arguments = ("pack", "file:weights", "-o", "bundle.tar.zst", "--store", "store")
        assert commands.run(*arguments, cwd=disk).code == 0
        state = os.statvfs(disk)
        names = state.f_files - state.f_ffree
        small_disk(f"size={(state.f_blocks - state.f_bfree) * state.f_frsize},nr_inodes={names}")
        assert commands.run("store", "--clear", "--store", "store", cwd=disk).code == 0
        assert [*(disk / "store/blobs/sha256").iterdir()] == []
