"""Bundles in volumes, written: all of them or none, and nothing of an older bundle among them."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import run
from disk_calls import KILL, At, Call, Commands, Refuse, Send, Verdict
from memory_source import MemorySource
from volume_sets import list_of

import bundler
from bundler.errors import (
    DamagedError,
    FormatError,
    RequestError,
    TargetError,
    UnavailableError,
)
from bundler.split_size import parsed_size
from bundler.whole_file import whole_file

FILES = {"config.json": b"{}", "model.safetensors": os.urandom(3_000_000)}
NAME = "b.tar.zst"


def pack(output: Path | io.BytesIO, size: Any = None, files: dict[str, bytes] = FILES) -> Any:
    store = output.parent.parent / "store" if isinstance(output, Path) else None
    return bundler.pack(
        ["acme/tiny"], output, split_size=size, store=store,
        sources=(MemorySource({"acme/tiny": files}),),
    )  # fmt: skip


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    """A folder for a bundle."""
    folder = tmp_path / "stick"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    """The bundle in one file, and its id."""
    path = tmp_path_factory.mktemp("whole") / "folder" / NAME
    path.parent.mkdir()
    packed = pack(path)
    return path.read_bytes(), str(packed.digest)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def in_volumes(bundle: bytes, id_: str, size: int) -> dict[str, bytes]:
    """What there is of a bundle in volumes of a size."""
    parts = [bundle[start : start + size] for start in range(0, len(bundle), size)]
    names = {f"{NAME}.{number:03}": part for number, part in enumerate(parts)}
    return {**names, f"{NAME}.volumes": list_of(parts, id_, NAME)}


@pytest.mark.parametrize("size", [1_234_567, 1 << 20, 4096 * 100, 2_999_999, 10**10, "all", "half"])
def test_volumes_are_parts_of_the_same_bytes(
    stick: Path, whole: tuple[bytes, str], size: Any
) -> None:
    size = {"all": len(whole[0]), "half": -(-len(whole[0]) // 2)}.get(size, size)
    packed = pack(stick / NAME, size)
    assert contents(stick) == in_volumes(*whole, size)
    assert (packed.size, packed.volumes) == (len(whole[0]), -(-len(whole[0]) // size))
    assert bundler.verify(stick).faults == ()


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("4GiB", 4 << 30), ("700MB", 700 * 10**6), ("4.7gb", 4_700_000_000),
     ("1 TiB", 1 << 40), ("64kB", 64_000), ("123", 123), ("123B", 123), ("auto", "auto")],
)  # fmt: skip
def test_sizes_are_as_on_a_label(text: str, size: int | str) -> None:
    assert parsed_size(text) == size


@pytest.mark.parametrize("text", ["", "4G B", "-1", "4XB", "iB", "1e9", "GB", "4GBB", "0", "0.1B"])
def test_a_wrong_size_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(RequestError, match=r"say.* 4GB"):
        pack(tmp_path / "b.tar.zst", parsed_size(text))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "size", "said"),
    [
        ("-", "4GB", "standard output cannot be split"),
        ("/dev/null", "4GB", "is no file, and cannot be split"),
        ("back\\slash", "4GB", "a list of volumes cannot have the name"),
        ("line\nbreak", "4GB", "a list of volumes cannot have the name"),
        ("b.tar.zst", "many", "--split-size many is no size"),
        ("b.tar.zst", "1", "at most 1,000 volumes"),
    ],
)
def test_what_cannot_be_split_is_refused(tmp_path: Path, output: str, size: str, said: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.bin").write_bytes(FILES["model.safetensors"][:4000])
    done = run("pack", "file:model", "-o", output, "--split-size", size, home=tmp_path)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert said in done.err
    assert not [path for path in tmp_path.iterdir() if path.name not in ("model", ".cache")]


def test_a_stream_is_not_split() -> None:
    with pytest.raises(RequestError, match="cannot be split"):
        pack(io.BytesIO(), 1000)


def test_volumes_that_turn_out_to_be_too_many_leave_nothing(stick: Path) -> None:
    # Of what may shrink by so much, it is not known before.
    with pytest.raises(RequestError, match="at most 1,000 volumes"):
        pack(stick / NAME, 80, {"model.safetensors": os.urandom(90_000)})
    assert contents(stick) == {}


def test_the_command_line_says_what_it_wrote(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.bin").write_bytes(FILES["model.safetensors"])
    request = ("pack", "file:model", "-o", "b.tar.zst", "--split-size", "1MB")
    done = run(*request, home=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "wrote b.tar.zst: 3 MB in 4 volumes\n" in done.out
    assert "next: carry b.tar.zst.* (sha256sum -c compares) over" in done.out
    document = json.loads(run(*request, "--json", home=tmp_path).out)
    assert (document["path"], document["volumes"]) == ("b.tar.zst", 4)
    locked = run("pack", "--locked", ".", "-o", "c.tar.zst", home=tmp_path)
    assert locked.code == 0, locked.err
    assert bundler.inspect(tmp_path / "c.tar.zst").digest == bundler.inspect(tmp_path / NAME).digest


def test_where_a_file_can_be_large_enough_auto_splits_nothing(
    stick: Path, whole: tuple[bytes, str]
) -> None:
    pack(stick / NAME, 500_000)
    packed = pack(stick / NAME, "auto")
    assert contents(stick) == {NAME: whole[0]}
    assert packed.volumes == 0


def test_an_older_bundle_of_the_same_name_goes(stick: Path, whole: tuple[bytes, str]) -> None:
    (stick / "models.124").write_bytes(b"another bundle")
    (stick / f"{NAME}.777").write_bytes(b"not of the older set")
    others = contents(stick)
    (stick / NAME).write_bytes(b"the older bundle in one file")
    pack(stick / NAME, 300_000)
    pack(stick / NAME, 700_000)
    assert contents(stick) == {**others, **in_volumes(*whole, 700_000)}
    (stick / f"{NAME}.volumes").unlink()
    pack(stick / NAME, 2_000_000)
    assert contents(stick) == {**others, **in_volumes(*whole, 2_000_000)}


def test_a_link_is_followed_to_where_it_leads(stick: Path, whole: tuple[bytes, str]) -> None:
    (stick.parent / "links").mkdir()
    (stick.parent / "links" / "link").symlink_to(stick / NAME)
    pack(stick.parent / "links" / "link", 2_000_000)
    assert contents(stick) == in_volumes(*whole, 2_000_000)


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_draft_is_no_way_to_another_file(
    stick: Path, whole: tuple[bytes, str], kind: str
) -> None:
    (stick.parent / "precious").write_bytes(b"precious")
    draft = stick / f".{NAME}.000.bundler-part"
    if kind == "link":
        draft.symlink_to("../precious")
    else:
        os.mkfifo(draft)
    pack(stick / NAME, 2_000_000)
    assert contents(stick) == in_volumes(*whole, 2_000_000)
    assert (stick.parent / "precious").read_bytes() == b"precious"


def test_one_process_at_a_time_writes_a_name(stick: Path) -> None:
    with whole_file(stick / NAME) as file:
        file.write(b"theirs")
        with pytest.raises(TargetError, match="another bundler is writing"):
            pack(stick / NAME, 2_000_000)
    assert contents(stick) == {NAME: b"theirs"}


def test_a_bundle_in_one_file_takes_the_drafts_of_volumes_away(
    stick: Path, whole: tuple[bytes, str]
) -> None:
    for number in (0, 7):
        (stick / f".{NAME}.{number:03}.bundler-part").write_bytes(b"of a killed run")
    pack(stick / NAME)
    assert contents(stick) == {NAME: whole[0]}


def test_a_full_disk_leaves_what_was_there(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=5m")
    pack(disk / NAME, 1_000_000, {"config.json": b"{}", "model.safetensors": os.urandom(2_000_000)})
    before = contents(disk)
    with pytest.raises(TargetError, match=r"no space left for|has .* free, and a bundle of"):
        pack(disk / NAME, 1_000_000, {"model.safetensors": os.urandom(4_000_000)})
    assert contents(disk) == before


def test_a_dry_run_fails_where_it_would_not_fit(
    small_disk: Callable[[str], Path], tmp_path: Path
) -> None:
    disk = small_disk("size=1m")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.bin").write_bytes(os.urandom(4_000_000))
    request = ("pack", "file:model", "--store", "store", "-o")
    for place in (disk / NAME, disk, tmp_path / "none" / NAME):
        real = run(*request, place, home=tmp_path)
        dry = run(*request, place, "--dry-run", home=tmp_path)
        assert (dry.code, dry.out, dry.err) == (6, real.out, real.err)
    assert contents(disk) == {}


class TestWhereNoFileCanBeLarge:
    """As on FAT: whoever goes to 4 GiB in a folder is refused."""

    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        """Weights of which a bundle has 4 GiB at the least, as far as their size tells."""
        weights = tmp_path / "model" / "a.bin"
        weights.parent.mkdir()
        weights.touch()
        os.truncate(weights, 8 << 30)
        return weights

    @staticmethod
    def as_fat(call: Call) -> Verdict:
        beyond = call.name == "seek" and call.arguments[1] >= 4 << 30
        return Refuse(errno.EINVAL) if beyond and call.paths[0].name == "stick" else None

    def test_a_bundle_that_does_not_fit_is_refused_before_anything_is_read(
        self, commands: Commands, model: Path, stick: Path, tmp_path: Path
    ) -> None:
        (stick / NAME).write_bytes(b"an older bundle")
        read = []

        def as_fat(call: Call) -> Verdict:
            if call.name == "read" and call.paths[0] == model:
                read.append(call)
                return Refuse(errno.EIO)
            return self.as_fat(call)

        request = ("pack", "file:model", "-o", f"stick/{NAME}", "--store", "store")
        done = commands.run(*request, cwd=tmp_path, decide=as_fat, reads=True)
        assert (done.code, done.err.count("\n"), read) == (6, 1, [])
        assert "would be larger than its file system can hold (FAT: 4 GiB)" in done.err
        assert "pack with --split-size auto" in done.err
        assert contents(stick) == {NAME: b"an older bundle"}
        for asked in (("--split-size", "auto"), ("--split-size", "4GB")):
            done = commands.run(*request, *asked, cwd=tmp_path, decide=as_fat, reads=True)
            assert "Input/output error" in done.err

    def test_a_dry_run_tells_the_plan_and_then_the_same(
        self, commands: Commands, model: Path, stick: Path, tmp_path: Path
    ) -> None:
        request = ("pack", "file:model", "-o", f"stick/{NAME}", "--store", "store")
        real = commands.run(*request, cwd=tmp_path, decide=self.as_fat, reads=True)
        at = At()

        def as_fat(call: Call) -> Verdict:
            return at(call) or self.as_fat(call)

        dry = commands.run(*request, "--dry-run", cwd=tmp_path, decide=as_fat, reads=True)
        assert (dry.code, dry.out, dry.err) == (real.code, real.out, real.err)
        assert (dry.code, "file:model" in dry.out) == (6, True)
        assert [call for call in at.calls if call.name not in ("seek", "read")] == []
        dry = commands.run(
            *request, "--dry-run", "--split-size", "auto",
            cwd=tmp_path, decide=self.as_fat, reads=True,
        )  # fmt: skip
        assert (dry.code, dry.err) == (0, "")
        assert contents(stick) == {}

    def test_what_fits_is_one_file(
        self, commands: Commands, model: Path, stick: Path, tmp_path: Path
    ) -> None:
        os.truncate(model, 2_000_000)
        request = ("pack", "file:model", "-o", f"stick/{NAME}", "--store", "store")
        for asked in ((), ("--split-size", "auto")):
            done = commands.run(*request, *asked, cwd=tmp_path, decide=self.as_fat, reads=True)
            assert (done.code, [*contents(stick)]) == (0, [NAME]), done.err

    def test_what_turns_out_too_large_says_what_to_do(
        self, commands: Commands, model: Path, stick: Path, tmp_path: Path
    ) -> None:
        os.truncate(model, 2_000_000)
        (stick / NAME).write_bytes(b"an older bundle")

        def full(call: Call) -> Verdict:
            is_bundle = call.name == "write" and call.paths[0].parent == stick
            return Refuse(errno.EFBIG) if is_bundle else None

        request = ("pack", "file:model", "-o", f"stick/{NAME}", "--store", "store")
        done = commands.run(*request, cwd=tmp_path, decide=full)
        assert (done.code, done.err.count("\n")) == (6, 1)
        assert "pack with --split-size auto" in done.err
        assert contents(stick) == {NAME: b"an older bundle"}


class TestStopped:
    """At any call that changes the folder of the bundle."""

    @pytest.fixture
    def packing(self, commands: Commands, stick: Path) -> Callable[..., Any]:
        """Packs in volumes where an older, longer set is; gives how that ended."""
        model = stick.parent / "model"
        model.mkdir()
        store = stick.parent / "store"
        arguments = ("pack", f"file:{model}", "-o", NAME, "--store", store, "--jobs", 1)

        def pack(decide: At | None = None, size: int = 2_000) -> Any:
            return commands.run(*arguments, "--split-size", size, cwd=stick, decide=decide or At())

        self.old = self.set_of(pack, stick, model, 7_000, 1_000)
        self.new = self.set_of(pack, stick, model, 5_000, 2_000)
        return pack

    @staticmethod
    def set_of(
        pack: Callable[..., Any], stick: Path, model: Path, length: int, size: int
    ) -> dict[str, bytes]:
        for path in stick.iterdir():
            path.unlink()
        (model / "a.bin").write_bytes(os.urandom(length))
        assert pack(size=size).code == 0
        return contents(stick)

    def reset(self, stick: Path) -> None:
        for path in stick.iterdir():
            path.unlink()
        for name, content in self.old.items():
            (stick / name).write_bytes(content)

    def calls(self, packing: Callable[..., Any], stick: Path) -> int:
        self.reset(stick)
        at = At()
        assert packing(at).code == 0
        assert contents(stick) == self.new
        assert len(self.old) > len(self.new) > 2
        return len(at.calls)

    def read(self, stick: Path) -> str | None:
        """The id of the bundle that is found there, if there is a whole one."""
        try:
            result = bundler.verify(stick / NAME)
        except (UnavailableError, DamagedError, FormatError):
            return None
        return None if result.faults else str(result.digest)

    def test_killed_it_is_begun_again_and_leaves_nothing(
        self, packing: Callable[..., Any], stick: Path
    ) -> None:
        calls = self.calls(packing, stick)
        new = self.read(stick)
        self.reset(stick)
        old = self.read(stick)
        assert len({None, old, new}) == 3
        seen = []
        for number in range(calls):
            self.reset(stick)
            assert packing(At(number, KILL)).code == -9
            seen.append(self.read(stick))
            assert packing().code == 0
            assert contents(stick) == self.new
        assert set(seen) <= {old, new, None}
        # The older bundle is there until all of the new one is on the disk.
        assert seen.index(None) > calls / 2
        assert old not in seen[seen.index(None) :]

    def test_interrupted_or_refused_it_leaves_no_drafts(
        self, packing: Callable[..., Any], stick: Path
    ) -> None:
        verdicts: list[Verdict] = [Send(signal.SIGINT), Refuse(errno.EIO), Refuse(errno.ENOSPC)]
        for number in range(self.calls(packing, stick)):
            self.reset(stick)
            verdict = verdicts[number % 3]
            code = packing(At(number, verdict)).code
            assert code in ((130, 0) if isinstance(verdict, Send) else (6, 0))
            assert [name for name in contents(stick) if "bundler-part" in name] == []
            assert packing().code == 0
            assert contents(stick) == self.new
