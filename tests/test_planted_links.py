"""Links and files that another user of the machine puts where bundler works, before or meanwhile.

What stands outside the roots stays as it is, and nothing is read there that bundler acts on.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Ran, run
from disk_calls import Call, Commands
from memory_source import make_bundle
from trees import Tree, tree

from bundler.receipt_folder import read_receipts

FILES = {"config.json": b"{}", "model.safetensors": b"weights"}
RECEIPTS = "r/huggingface/.bundler/receipts"
MINE = b"mine alone\n"
STRANGER = 12345
"""The number of a user who is not this one."""
COMMANDS: dict[str, tuple[str, ...]] = {
    "unpack": ("unpack", "b", "--root", "r"),
    "installed": ("installed", "--root", "r"),
    "verify": ("verify", "--root", "r"),
    "remove": ("remove", "org/tiny", "--root", "r"),
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a bundle, and beside it, in `outside`, what nobody is to change."""
    home = tmp_path / "home"
    home.mkdir()
    make_bundle(home / "b", {"org/tiny": FILES})
    for name in ("bundler/mine", "receipts/mine.json.bundler-part", "mine"):
        (tmp_path / "outside" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "outside" / name).write_bytes(MINE)
    return home


@pytest.fixture
def outside(home: Path) -> Path:
    return home.parent / "outside"


def receipt_name(home: Path) -> str:
    """What the receipt of the bundle is called, once it is unpacked."""
    (name,) = os.listdir(home / RECEIPTS)
    return name


def assert_refused(ran: Ran, word: str) -> None:
    """Exit code 6, and one plain line with `word` in it."""
    assert (ran.code, ran.out, ran.err.count("\n")) == (6, "", 1), ran.err
    assert ran.err.removesuffix("\n").isprintable()
    assert word in ran.err


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", [".bundler", ".bundler/receipts"])
def test_receipts_are_neither_written_nor_read_through_a_link(
    place: str, command: str, home: Path, outside: Path
) -> None:
    link = home / "r/huggingface" / place
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    before = tree(home.parent)
    assert_refused(run(*COMMANDS[command], home=home), place)
    assert tree(home.parent) == before


def test_a_receipt_that_is_a_link_is_none_and_is_replaced(home: Path, outside: Path) -> None:
    assert run(*COMMANDS["unpack"], home=home).code == 0
    receipt = home / RECEIPTS / receipt_name(home)
    receipt.rename(outside / "real.json")
    receipt.symlink_to(outside / "real.json")
    before = tree(outside)
    assert list(read_receipts(home / "r/huggingface")) == []
    assert run(*COMMANDS["unpack"], home=home).code == 0
    assert (receipt.is_symlink(), tree(outside)) == (False, before)


def a_link(draft: Path, mine: Path) -> None:
    draft.symlink_to(mine)


def another_name(draft: Path, mine: Path) -> None:
    os.link(mine, draft)


def a_strangers(draft: Path, _: Path) -> None:
    draft.write_bytes(b"")
    os.chown(draft, STRANGER, STRANGER)


DRAFTS: dict[str, tuple[Callable[[Path, Path], None], bool]] = {
    "a link": (a_link, False),
    "another name of a file": (another_name, True),
    "a file of somebody else": (a_strangers, True),
}
"""What stands where a draft is to be, and whether it can be done without."""


def planted(kind: str, draft: Path, outside: Path) -> None:
    """Put it there."""
    if kind == "a file of somebody else" and os.geteuid() != 0:
        pytest.skip("only root can give files away")
    DRAFTS[kind][0](draft, outside / "mine")


@pytest.mark.parametrize("kind", DRAFTS)
@pytest.mark.parametrize("of", ["the receipt", "the environment file"])
def test_what_stands_where_a_draft_is_to_be_is_not_written_to(
    of: str, kind: str, home: Path, outside: Path
) -> None:
    if of == "the receipt":
        assert run(*COMMANDS["unpack"], home=home).code == 0
        file = home / RECEIPTS / receipt_name(home)
        file.unlink()
    else:
        file = home / "offline.env"
    planted(kind, file.with_name(f".{file.name}.bundler-part"), outside)
    before = tree(outside)
    ran = run(*COMMANDS["unpack"], home=home)
    if DRAFTS[kind][1]:
        assert (ran.code, ran.err) == (0, "")
        assert (file.lstat().st_uid, file.lstat().st_nlink) == (os.geteuid(), 1)
    else:
        assert_refused(ran, file.name)
    assert tree(outside) == before


def test_who_could_write_to_what_was_there_cannot_write_to_what_takes_its_place(
    home: Path,
) -> None:
    assert run(*COMMANDS["unpack"], home=home).code == 0
    receipt, env = home / RECEIPTS / receipt_name(home), home / "offline.env"
    receipt.write_text("")
    env.write_text(env.read_text().replace("HF_HUB_OFFLINE", "HF_HUB_OTHER"))
    for file in (receipt, env):
        file.chmod(0o666)
    assert run(*COMMANDS["unpack"], home=home).code == 0
    assert [oct(file.stat().st_mode & 0o777) for file in (receipt, env)] == ["0o664"] * 2


@pytest.mark.parametrize("target", ["mine", "nothing"])
def test_an_environment_file_that_is_a_link_is_not_written_through(
    target: str, home: Path, outside: Path
) -> None:
    (home / "offline.env").symlink_to(outside / target)
    before = tree(outside)
    ran = run(*COMMANDS["unpack"], home=home)
    if target == "mine":
        assert_refused(ran, "offline.env is not bundler's own file")
    else:
        assert (ran.code, (home / "offline.env").is_symlink()) == (0, False)
    assert tree(outside) == before


def test_an_environment_file_without_end_is_not_read_to_its_end(home: Path) -> None:
    with open(home / "offline.env", "wb") as file:
        file.truncate(1 << 40)
    assert_refused(run(*COMMANDS["unpack"], home=home), "offline.env is not bundler's own file")


@pytest.mark.parametrize("place", ["r/huggingface/hub/.locks", "r/huggingface/.bundler"])
@pytest.mark.parametrize("moment", ["open", "fsync", "rename"])
def test_a_link_that_is_planted_meanwhile_leads_nowhere(
    moment: str, place: str, home: Path, outside: Path
) -> None:
    """At the first call of that name below the folder, it becomes a link to outside."""
    folder = home / place
    planted = False

    def decide(call: Call) -> None:
        nonlocal planted
        concerned = any(folder in path.parents for path in call.paths)
        if call.name == moment and concerned and folder.is_dir() and not planted:
            planted = True
            folder.rename(folder.with_name("away"))
            folder.symlink_to(outside)

    before: Tree = tree(outside)
    with Commands(home) as commands:
        ran = commands.run(*COMMANDS["unpack"], cwd=home, decide=decide)
    assert planted
    assert ran.code in (0, 6), ran.err
    assert ran.err.count("\n") == (ran.code != 0)
    assert tree(outside) == before


@pytest.mark.parametrize("folder", ["tree", "removed"])
def test_folders_in_folders_without_end_are_told(folder: str, home: Path) -> None:
    place = home / "r/huggingface/hub/.locks/bundler" / folder
    place.mkdir(parents=True)
    handle = os.open(place, os.O_RDONLY)
    for _ in range(1_500):
        os.mkdir("x", dir_fd=handle)
        deeper = os.open("x", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = deeper
    os.close(handle)
    ran = run(*COMMANDS["unpack"], home=home)
    subprocess.run(["rm", "-r", place], check=True)  # Python, and so pytest, could not.
    assert_refused(ran, ".locks/bundler")
