"""Names that the systems which a bundle may go to cannot hold, told while it can be helped."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from command import run
from loopback_hub import LoopbackHub
from memory_source import MemorySource

import bundler
from bundler.names import unportable

WHOLE = bundler.Selection(all_files=True)


CASES = {
    "harmless": (["config.json", "a/b.c/d e.txt", ".hidden", "a+b=c,d;e@f#g%h"], []),
    "other letters": (["模型.txt", "é.txt", "ß", "ss"], []),
    **{f"the sign {sign}": ([f"a{sign}b/c", "ok"], [f"a{sign}b/c"]) for sign in '<>:"|?*'},
    "a dot at the end": (["a./b", "c.", "..d", "e..f"], ["a./b", "c."]),
    "a space at the end": (["a /b", "c ", " d"], ["a /b", "c "]),
    "case alone": (["README", "readme", "a/x", "A/X", "x"], ["A/X", "README", "a/x", "readme"]),
    "case of other letters": (["É", "é", "e"], ["É", "é"]),
    "one name in two folders": (["a/x", "b/X"], []),
    "one path twice": (["a", "a"], []),
}


@pytest.mark.parametrize(("paths", "found"), CASES.values(), ids=CASES)
def test_what_windows_cannot_hold(paths: list[str], found: list[str]) -> None:
    assert unportable(paths) == found


def plan(tmp_path: Path, files: dict[str, bytes], selection: bundler.Selection) -> bundler.PackPlan:
    """The plan of packing `files` as org/name."""
    sources = (MemorySource({"org/name": files}),)
    store = tmp_path / "store"
    return bundler.plan_pack(["org/name"], selection=selection, store=store, sources=sources)


def test_a_plan_names_up_to_three_such_files_and_what_to_do(tmp_path: Path) -> None:
    files = {f"logs/12:0{n}.txt": b"" for n in range(5)} | {"config.json": b"{}"}
    (note,) = plan(tmp_path, files, WHOLE).notes
    assert note == (
        "org/name has files that Windows and exFAT cannot hold: logs/12:00.txt, logs/12:01.txt, "
        "logs/12:02.txt and 2 more; leave them out with --exclude if that is where it goes"
    )


@pytest.mark.parametrize("left_out", ["logs/*", "*:*"])
def test_what_is_left_out_is_not_told(left_out: str, tmp_path: Path) -> None:
    files = {"logs/12:00.txt": b"", "config.json": b"{}"}
    selection = bundler.Selection(all_files=True, exclude=(left_out,))
    assert plan(tmp_path, files, selection).notes == ()


def test_the_command_line_tells_it_and_packs_all_the_same(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add("org/name", {"config.json": b"{}", "Notes?.txt": b"", "README": b"", "readme": b""})
    command = ("pack", "org/name", "--all-files", "-o", tmp_path / "b.tar.zst")
    env = {"HF_ENDPOINT": hub.url}
    planned = json.loads(run(*command, "--dry-run", "--json", home=tmp_path, env=env).out)
    done = run(*command, home=tmp_path, env=env)
    assert done.code == 0, done.err
    said = "org/name has files that Windows and exFAT cannot hold: Notes?.txt, README, readme;"
    assert [note for note in planned["notes"] if note.startswith(said)]
    assert f"note: {said}" in done.out + done.err
    assert len(bundler.inspect(tmp_path / "b.tar.zst").manifest.snapshots[0].files) == 4


def test_such_files_are_unpacked_where_the_system_can_hold_them(tmp_path: Path) -> None:
    files = {"ab:c?.txt": b"1", "README": b"2", "readme": b"3", "x ": b"4"}
    bundle, sources = tmp_path / "b.tar.zst", (MemorySource({"org/name": files}),)
    bundler.pack(["org/name"], bundle, selection=WHOLE, store=tmp_path / "s", sources=sources)
    ran = run("unpack", bundle, "--root", tmp_path / "root", home=tmp_path)
    assert ran.code == 0, ran.err
    (folder,) = (tmp_path / "root/huggingface/hub/models--org--name/snapshots").iterdir()
    assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == files
