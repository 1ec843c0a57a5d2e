"""What is read cannot be, becomes shorter or is changed meanwhile: told in a line, nothing done."""

from __future__ import annotations

import errno
import io
import itertools
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command import Ran
from disk_calls import SKIP, SYNCS, At, Call, Commands, Refuse, Verdict
from loopback_hub import LoopbackHub
from trees import tree
from unlucky import HUB, bundle_of, merging

import bundler
from bundler.errors import DamagedError, FormatError

CONTENT = bytes(range(256)) * 9_000
"""More than is read at once."""
CHANGED = CONTENT[::-1]
OLDER = b"an older bundle"


class Reads(At):
    """Decides about reads of one file alone, by their number."""

    def __init__(self, path: Path, number: int, verdict: Verdict, *, lasting: bool = False) -> None:
        super().__init__(number, verdict, lasting=lasting)
        self._path = path

    def __call__(self, call: Call) -> Verdict:
        if call.name == "read" and call.paths[0] == self._path:
            return super().__call__(call)
        return SKIP if call.name in SYNCS else None


class ReadsBelow(Reads):
    """The same of all files below a folder."""

    def __call__(self, call: Call) -> Verdict:
        if call.name == "read" and self._path in call.paths[0].parents:
            return At.__call__(self, call)
        return SKIP if call.name in SYNCS else None


class Changing(At):
    """Changes a file when it is read for a time of a number."""

    def __init__(self, path: Path, number: int, change: Callable[[Path], None]) -> None:
        super().__init__()
        self._path = path
        self._number = number
        self._change = change

    def __call__(self, call: Call) -> Verdict:
        if call.name != "read" or call.paths[0] != self._path:
            return SKIP if call.name in SYNCS else None
        if len(self.calls) == self._number:
            self._change(self._path)
        return super().__call__(call)


class Unsteady(io.BytesIO):
    """A bundle that goes wrong with the read of a number, and all later ones."""

    def __init__(self, content: bytes, number: int, fail: Callable[[], bytes]) -> None:
        super().__init__(content)
        self._number = number
        self._fail = fail
        self.reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        return super().read(size) if self.reads <= self._number else self._fail()


def no_more() -> bytes:
    return b""


def input_output_error() -> bytes:
    raise OSError(errno.EIO, "Input/output error")


@pytest.fixture
def bundle(tmp_path: Path) -> bytes:
    files = {"model.safetensors": CONTENT, "config.json": b"{}"}
    return bundle_of(tmp_path / "bundles", "bundle", {"org/tiny": files}).read_bytes()


def unpack(root: Path, source: io.BytesIO) -> None:
    bundler.unpack(source, roots=bundler.find_roots({}, root=root), env=None)


class TestABundle:
    @pytest.mark.parametrize("fail", [no_more, input_output_error])
    def test_that_cannot_be_read_to_its_end_changes_nothing(
        self, fail: Callable[[], bytes], bundle: bytes, tmp_path: Path
    ) -> None:
        steady = Unsteady(bundle, sys.maxsize, fail)
        unpack(tmp_path / "steady", steady)
        for number in range(steady.reads):
            root = tmp_path / str(number)
            with pytest.raises((DamagedError, FormatError)) as refused:
                unpack(root, Unsteady(bundle, number, fail))
            assert "\n" not in str(refused.value)
            assert not root.exists()

    def test_that_comes_in_small_pieces_is_as_good(self, bundle: bytes, tmp_path: Path) -> None:
        class Dripping(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                return super().read(1000 if size in (None, -1) else min(size or 0, 1000))

        unpack(tmp_path / "dripped", Dripping(bundle))
        unpack(tmp_path / "at once", io.BytesIO(bundle))
        assert tree(tmp_path / "dripped/huggingface") == tree(tmp_path / "at once/huggingface")

    def test_on_a_stick_that_fails_is_told_and_changes_nothing(
        self, commands: Commands, bundle: bytes, tmp_path: Path
    ) -> None:
        case = tmp_path / "case"
        (case / "root").mkdir(parents=True)
        (case / "bundle").write_bytes(bundle)
        before = tree(case)
        for number in itertools.count():
            failing = Reads(case / "bundle", number, Refuse(errno.EIO))
            arguments = ("unpack", "bundle", "--root", "root")
            ran = commands.run(*arguments, cwd=case, decide=failing, reads=True)
            if len(failing.calls) <= number:
                break
            assert (ran.code, ran.out, ran.err.count("\n")) == (4, "", 1), ran.err
            assert "the bundle cannot be read: Input/output error" in ran.err
            assert tree(case) == before
        assert (ran.code, ran.err) == (0, "")
        assert number > 3


class Source:
    """A folder with weights to pack, and an older bundle."""

    def __init__(self, commands: Commands, folder: Path) -> None:
        self._commands = commands
        self._folder = folder
        self.weights = folder / "weights.pth"
        self.bundle = folder / "bundle.tar.zst"

    def pack(self, decide: At | None = None) -> Ran:
        """Pack the weights as they are."""
        arguments = ("pack", "file:weights.pth", "-o", self.bundle.name, "--store", "store")
        reads = decide is not None
        return self._commands.run(*arguments, cwd=self._folder, decide=decide, reads=reads)

    def pack_anew(self, decide: At) -> Ran:
        """Pack the weights as they were first, where nothing was packed before."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        self.weights.write_bytes(CONTENT)
        self.bundle.write_bytes(OLDER)
        return self.pack(decide)

    def packed(self) -> bytes:
        """What is in the bundle as the weights, which was compared."""
        root = self._folder / "unpacked"
        roots = bundler.find_roots({}, root=root, checkpoints=root)
        bundler.unpack(self.bundle, roots=roots, env=None)
        content = (root / "weights.pth").read_bytes()
        shutil.rmtree(root)
        return content


@pytest.fixture
def source(commands: Commands, tmp_path: Path) -> Source:
    return Source(commands, tmp_path / "source")


def rewritten(path: Path) -> None:
    path.write_bytes(CHANGED)


def replaced(path: Path) -> None:
    path.with_name("new").write_bytes(CHANGED)
    path.with_name("new").replace(path)


def cut_short(path: Path) -> None:
    os.truncate(path, 1000)


def longer(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def removed(path: Path) -> None:
    path.unlink()


class TestAFileToPack:
    def test_that_cannot_be_read_is_told_and_the_older_bundle_stays(self, source: Source) -> None:
        for number in itertools.count():
            failing = Reads(source.weights, number, Refuse(errno.EIO), lasting=True)
            ran = source.pack_anew(failing)
            if len(failing.calls) <= number:
                break
            assert (ran.code, ran.err.count("\n")) == (4, 1), ran.err
            assert f"cannot read {source.weights}: Input/output error" in ran.err
            assert source.bundle.read_bytes() == OLDER
            assert source.pack().code == 0
            assert source.packed() == CONTENT
        assert (ran.code, ran.err) == (0, "")
        assert number > 3

    def test_that_cannot_be_read_once_is_told_or_read_again(self, source: Source) -> None:
        for number in itertools.count():
            failing = Reads(source.weights, number, Refuse(errno.EIO))
            ran = source.pack_anew(failing)
            if len(failing.calls) <= number:
                break
            if ran.code == 0:
                assert source.packed() == CONTENT
            else:
                assert (ran.code, ran.err.count("\n")) == (4, 1), ran.err
                assert source.bundle.read_bytes() == OLDER
        assert number > 3

    @pytest.mark.parametrize("change", [rewritten, replaced, cut_short, longer, removed])
    def test_that_changes_meanwhile_is_told_or_packed_as_it_was_at_one_time(
        self, change: Callable[[Path], None], source: Source
    ) -> None:
        codes = set()
        for number in itertools.count():
            changing = Changing(source.weights, number, change)
            ran = source.pack_anew(changing)
            if len(changing.calls) <= number:
                break
            codes.add(ran.code)
            if ran.code == 0:
                assert source.packed() in (CONTENT, source.weights.read_bytes())
                continue
            assert (ran.code in (2, 4), ran.err.count("\n")) == (True, 1), ran.err
            assert str(source.weights) in ran.err
            assert source.bundle.read_bytes() == OLDER
            if change is not removed:
                # What the store has shared with it may have to be dropped first.
                assert [source.pack().code for _ in range(2)][-1] == 0
                assert source.packed() == source.weights.read_bytes()
        assert (2 if change is removed else 4) in codes


class TestACacheThatFails:
    """The disk that is unpacked to cannot be read at some place."""

    def test_is_told_and_does_no_harm(
        self, commands: Commands, tmp_path: Path, hub: LoopbackHub
    ) -> None:
        scene = merging(commands, tmp_path, hub)
        for number in itertools.count():
            failing = ReadsBelow(scene.folder / HUB, number, Refuse(errno.EIO))
            ran = scene.run(failing, reads=True)
            if len(failing.calls) <= number:
                break
            assert (ran.code, ran.err.count("\n")) == (6, 1), ran.err
            assert str(scene.folder) in ran.err
            assert "Input/output error" in ran.err
            scene.assert_sound()
            scene.assert_tidy()
            scene.finish()
        assert (ran.code, ran.err) == (0, "")
        assert number > 6
