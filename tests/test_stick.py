"""Packing straight onto a stick: its name there, what it gives back, and what else is on it."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from command import run
from disk_calls import KILL, At, Call, Commands, Refuse, Verdict
from memory_source import Files, MemorySource

import bundler
from bundler.direct_io import read_blocks
from bundler.errors import TargetError
from bundler.remote import RemoteSnapshot
from bundler.stick import bundle_name

FILES = {"config.json": b"{}", "model.safetensors": os.urandom(300_000)}
MODELS = dict.fromkeys(("acme/tiny", "acme/tiny-2", "acme/other", "acme/third"), FILES)
README = "README.txt"


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    folder = tmp_path / "stick"
    folder.mkdir()
    return folder


def pack(
    output: Path | str, *names: str, files: Files = FILES, size: int | None = None
) -> bundler.Packed:
    """Pack models that all have these files."""
    models = dict.fromkeys(names or ("acme/tiny",), files)
    return bundler.pack(
        [*models], output, split_size=size, store=Path(output).parent / "store",
        sources=(MemorySource(models),),
    )  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder to pack by `file:`."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a.bin").write_bytes(FILES["model.safetensors"])
    return folder


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        (["acme/tiny"], "tiny"),
        (["tiny"], "tiny"),
        (["acme/tiny", "acme/other"], "tiny-and-1-more"),
        (["acme/other", "acme/third", "acme/tiny", "acme/tiny-2"], "other-and-3-more"),
        (["acme/tiny", "else/tiny"], "tiny"),
        (["resnet50-0676ba61.pth torchvision:resnet50", "x.pth torchvision:resnet50"], "resnet50"),
        (["a/b torchhub:a/b#c"], "b-c"),
        (["https://host/folder/x.pth"], "x.pth"),
        (["acme/aux"], "model-aux"),
        (["acme/com1.x"], "model-com1.x"),
        (["acme/a:b*c|d"], "a-b-c-d"),
        (["acme/..."], "model"),
        (["acme/-x."], "x"),
        (["acme/模型"], "model"),
        (["acme/" + "x" * 200], "x" * 80),
    ],
)
def test_it_is_named_after_the_models(models: list[str], expected: str) -> None:
    named = [model.split() for model in models]
    snapshots = [
        RemoteSnapshot("hf", name, "flat", (), specs=tuple(specs)) for name, *specs in named
    ]
    assert bundle_name(snapshots) == f"{expected}.tar.zst"


def test_it_goes_onto_the_stick_under_that_name(stick: Path) -> None:
    packed = pack(stick, "acme/tiny", "acme/other")
    assert packed.path == stick / "tiny-and-1-more.tar.zst"
    assert {path.name for path in stick.iterdir()} == {"tiny-and-1-more.tar.zst", README}
    assert not bundler.verify(packed.path).faults
    assert packed.safe_to_remove


def test_the_command_line_says_when_it_can_be_taken_out(model: Path, tmp_path: Path) -> None:
    (tmp_path / "usb").mkdir()
    done = run("pack", "file:model", "-o", "usb/", home=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "wrote usb/model.tar.zst: 302 kB\nread back from there: every byte" in done.out
    assert "\nsafe to remove: usb\n" in done.out
    done = run("pack", "file:model", "-o", "usb", "--json", home=tmp_path)
    document = json.loads(done.out)
    assert (document["path"], document["volumes"]) == ("usb/model.tar.zst", 0)
    assert (document["safe_to_remove"], document["readme"]) == (True, "usb/README.txt")
    done = run("pack", "file:model", "-o", "usb/file.zst", "--json", home=tmp_path)
    document = json.loads(done.out)
    assert (document["safe_to_remove"], document["readme"]) == (False, None)


def test_its_readme_has_the_commands_for_the_other_side(stick: Path, tmp_path: Path) -> None:
    packed = pack(stick)
    assert packed.readme == stick / README
    commands = [line for line in packed.readme.read_text().splitlines() if line.startswith("    ")]
    assert commands == ["    bundler unpack FOLDER/tiny.tar.zst", "    source offline.env"]
    unpack = commands[0].replace("FOLDER", str(stick)).split()[1:]
    assert run(*unpack, "--root", tmp_path / "t", home=tmp_path).code == 0


def test_its_readme_tells_of_every_bundle_that_is_there(stick: Path) -> None:
    for name in ("acme/tiny", "acme/other", "acme/third"):
        pack(stick, name, size=100_000 if name == "acme/other" else None)
    (stick / "tiny.tar.zst").unlink()
    pack(stick, "acme/third")
    text = (stick / README).read_text()
    names = [line.split("/")[1] for line in text.splitlines() if "bundler unpack" in line]
    assert names == ["other.tar.zst", "third.tar.zst"]


@pytest.mark.parametrize("kind", ["file", "empty", "link", "folder", "pipe"])
def test_the_readme_of_somebody_else_stays(stick: Path, kind: str) -> None:
    theirs = stick / README
    match kind:
        case "folder":
            theirs.mkdir()
        case "pipe":
            os.mkfifo(theirs)
        case "link":
            pack(stick)
            theirs.rename(stick.parent / "precious")
            theirs.symlink_to("../precious")
        case _:
            theirs.write_text("Holidays\n" * (kind == "file"))
    before = {path: path.lstat() for path in (theirs, theirs.resolve())}
    packed = pack(stick)
    # All but times: it was read.
    assert {path: path.lstat()[:7] for path in before} == {p: s[:7] for p, s in before.items()}
    assert packed.safe_to_remove
    assert packed.readme is None
    assert packed.notes == (f"{theirs} is not bundler's, and was left as it is",)


def test_without_a_readme_it_is_still_a_bundle(stick: Path) -> None:
    (stick / f".{README}.bundler-part").mkdir()
    packed = pack(stick)
    assert (packed.readme, len(packed.notes), packed.safe_to_remove) == (None, 1, True)
    assert packed.notes[0].startswith("there is no README.txt: cannot write")


class TestTaken:
    """The name on the stick is another's."""

    def test_the_same_bundle_takes_its_place(self, stick: Path) -> None:
        for size in (None, 100_000, 200_000, None):
            packed = pack(stick, size=size)
            assert packed.path == stick / "tiny.tar.zst"
            assert len([*stick.iterdir()]) == 2 + (packed.volumes or 0)

    @pytest.mark.parametrize("size", [None, 100_000])
    def test_another_one_stays(self, stick: Path, size: int | None) -> None:
        first = pack(stick, size=size)
        before = {path: path.read_bytes() for path in stick.iterdir() if path.name != README}
        for number in (2, 3):
            packed = pack(stick, files={"model.safetensors": b"x" * number})
            assert packed.path == stick / f"tiny-{number}.tar.zst"
        assert {path: path.read_bytes() for path in before} == before
        assert pack(stick, size=size).path == first.path

    @pytest.mark.parametrize("kind", ["file", "link", "dangling", "folder", "pipe", "list"])
    def test_what_is_no_bundle_stays(self, stick: Path, kind: str) -> None:
        place = stick / "tiny.tar.zst"
        match kind:
            case "folder":
                place.mkdir()
            case "pipe":
                os.mkfifo(place)
            case "link":
                (stick.parent / "elsewhere").mkdir()
                place.symlink_to(pack(stick.parent / "elsewhere").path or "")
            case "dangling":
                place.symlink_to("nowhere")
            case "list":
                (stick / "tiny.tar.zst.volumes").write_bytes(b"mine")
            case _:
                place.write_bytes(b"mine")
        before = [path.lstat() for path in stick.iterdir()]
        assert pack(stick).path == stick / "tiny-2.tar.zst"
        after = [path.lstat() for path in stick.iterdir()]
        assert {(s.st_ino, s.st_size, s.st_mtime_ns) for s in before} <= {
            (s.st_ino, s.st_size, s.st_mtime_ns) for s in after
        }


@pytest.mark.parametrize("name", ["tiny.tar.zst.001", "TINY.tar.zst.001"])
def test_a_volume_of_another_bundle_stays(stick: Path, name: str) -> None:
    """As on the second stick of a set. FAT takes names that differ in case alone for one."""
    volume = stick / name
    volume.write_bytes(b"of another")
    packed = pack(stick, size=100_000)
    assert (packed.path, packed.volumes) == (stick / "tiny-2.tar.zst", 4)
    assert volume.read_bytes() == b"of another"


def test_an_output_without_a_name_is_not_the_folder_one_is_in(model: Path, tmp_path: Path) -> None:
    done = run("pack", "file:model", "-o", "", home=tmp_path)
    assert (done.code, "--output is empty" in done.err) == (2, True)
    assert not (tmp_path / "model.tar.zst").exists()


@pytest.mark.parametrize("output", ["nowhere/", "nowhere/usb/"])
def test_a_stick_that_is_not_there_is_no_file(tmp_path: Path, output: str) -> None:
    with pytest.raises(TargetError, match=r"the folder .*nowhere.* does not exist"):
        pack(f"{tmp_path}/{output}")
    assert not (tmp_path / "nowhere").exists()


class TestFull:
    def test_it_is_told_before_anything_is_downloaded(
        self, small_disk: Callable[[str], Path], tmp_path: Path
    ) -> None:
        disk = small_disk("size=100k")
        source = MemorySource({"acme/tiny": FILES})
        with pytest.raises(TargetError, match=r"has .* free, and a bundle of at least"):
            bundler.pack(["acme/tiny"], disk, store=tmp_path / "store", sources=(source,))
        assert ("model.safetensors" in source.opened, [*disk.iterdir()]) == (False, [])

    def test_what_was_there_stays(self, small_disk: Callable[[str], Path]) -> None:
        disk = small_disk("size=500k")
        pack(disk)
        before = {path.name: path.read_bytes() for path in disk.iterdir()}
        with pytest.raises(TargetError, match=r"no space left for .*, whose disk has .* free"):
            pack(disk, "acme/other")
        assert {path.name: path.read_bytes() for path in disk.iterdir()} == before


class TestAttended:
    """Every call that changes the stick, and what becomes of it."""

    @pytest.fixture
    def packing(
        self, commands: Commands, stick: Path, model: Path
    ) -> Callable[[Callable[[Call], Verdict]], int]:
        (model / "a.bin").write_bytes(FILES["model.safetensors"][:5_000])
        arguments = ("pack", "file:../model", "-o", "./", "--store", "../store", "--jobs", 1)
        size = ("--split-size", 2_000)

        def pack(decide: Callable[[Call], Verdict], *, reads: bool = False) -> int:
            ran = commands.run(*arguments, *size, cwd=stick, decide=decide, reads=reads)
            self.said = ran.err
            return ran.code

        return pack

    def test_all_is_written_then_read_then_named_then_settled(
        self, packing: Callable[..., int], stick: Path
    ) -> None:
        at = At()
        assert packing(at, reads=True) == 0
        names = [f"model.tar.zst.{end}" for end in ("000", "001", "002", "003")]
        calls = [(call.name, call.paths[0]) for call in at.calls if call.paths]
        for name in names:
            draft = stick / f".{name}.bundler-part"
            last_write = max(n for n, call in enumerate(calls) if call == ("fsync", draft))
            first_read = calls.index(("read", draft))
            assert last_write < first_read < calls.index(("rename", draft))
        assert calls[-1] == ("syncfs", stick)
        assert {path.name for path in stick.iterdir()} == {*names, "model.tar.zst.volumes", README}

    @pytest.mark.parametrize("fault", ["flipped", "lost", "grown"])
    def test_a_stick_that_keeps_other_bytes_is_found_out(
        self, packing: Callable[..., int], stick: Path, fault: str
    ) -> None:
        assert packing(At()) == 0
        before = {path.name: path.read_bytes() for path in stick.iterdir()}

        def keep(name: str) -> Callable[[Call], Verdict]:
            def decide(call: Call) -> Verdict:
                if call.name == "fsync" and call.paths[0].name == f".model.tar.zst{name}":
                    content = bytearray(call.paths[0].read_bytes())
                    content[-1] ^= fault == "flipped"
                    size = len(content) + {"lost": -1, "flipped": 0, "grown": 1}[fault]
                    call.paths[0].write_bytes(content.ljust(size)[:size])
                return None

            return decide

        for name in (".000", ".002", ""):
            assert packing(keep(f"{name}.bundler-part")) == 4
            said = f"{stick} gives back other bytes than were written to it: the stick fails, or"
            assert said in self.said
            assert {path.name: path.read_bytes() for path in stick.iterdir()} == before

    def test_killed_the_same_command_goes_on(
        self, packing: Callable[..., int], stick: Path
    ) -> None:
        at = At()
        assert packing(at) == 0
        whole = {path.name: path.read_bytes() for path in stick.iterdir()}
        for number in range(0, len(at.calls), 2):
            for path in [*stick.iterdir()][: number % 3 * 9]:
                path.unlink()  # On to an empty stick, as well as in place of the same bundle.
            assert packing(At(number, KILL)) == -9
            assert packing(At()) == 0
            assert {path.name: path.read_bytes() for path in stick.iterdir()} == whole


@pytest.mark.parametrize("size", [0, 1, 4096, 1 << 20, (1 << 20) + 4097])
def test_blocks_are_the_content_of_a_file(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    assert b"".join(map(bytes, read_blocks(tmp_path / "file"))) == content


def test_a_disk_that_cannot_be_read_is_told(commands: Commands, stick: Path, model: Path) -> None:
    def refuse(call: Call) -> Verdict:
        is_read = call.name == "read" and call.paths[0].name.startswith(".model")
        return Refuse(errno.EIO) if is_read else None

    arguments = ("pack", "file:../model", "-o", ".", "--store", "../store")
    ran = commands.run(*arguments, cwd=stick, decide=refuse, reads=True)
    assert (ran.code, ran.err.count("\n")) == (6, 1)
    assert "fails (Input/output error)" in ran.err
    assert [*stick.iterdir()] == []


def test_one_that_was_pulled_out_is_not_told_to_be_full(
    commands: Commands, stick: Path, model: Path
) -> None:
    """Linux says so of FAT without a disk; but the disk cannot be synced."""

    def refuse(call: Call) -> Verdict:
        is_folder = call.name == "fsync" and call.paths == (stick,)
        is_draft = call.name == "write" and call.paths[0].name.startswith(".model")
        return Refuse(errno.EIO) if is_folder else Refuse(errno.ENOSPC) if is_draft else None

    arguments = ("pack", "file:../model", "-o", ".", "--store", "../store")
    ran = commands.run(*arguments, cwd=stick, decide=refuse)
    assert (ran.code, ran.err.count("\n")) == (6, 1)
    assert "fails (Input/output error), or was taken out" in ran.err
