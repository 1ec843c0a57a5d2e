"""Bundles in volumes, read: from anywhere, in any order, and each volume told from the others."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from bundle_builder import COMMIT_HASH, Collected, Pipe
from command import command_environment, run
from hypothesis import given
from hypothesis import strategies as st
from volume_sets import (
    BUNDLE,
    FILES,
    ID,
    NAME,
    OTHER_BUNDLE,
    OTHER_ID,
    cut,
    lines_of,
    list_of,
    parts_at,
    write_set,
)

import bundler
from bundler.archive import open_bundle
from bundler.errors import BundlerError, DamagedError, FormatError, RequestError, UnavailableError

COUNT = 5
PARTS = cut(BUNDLE, COUNT)
OTHER_PARTS = cut(OTHER_BUNDLE, COUNT)
SNAPSHOT = Path("huggingface/hub/models--org--model/snapshots") / COMMIT_HASH
needs_tools = pytest.mark.skipif(
    not all(map(shutil.which, ("zstd", "tar", "sha256sum"))), reason="no GNU tools on this system"
)


def unpacked(source: object, root: Path) -> dict[str, bytes]:
    """What is in the model that `source` unpacks to."""
    bundler.unpack(source, roots=bundler.find_roots({}, root=root), env=None)  # type: ignore[arg-type]
    return {path: (root / SNAPSHOT / path).read_bytes() for path in FILES}


@given(st.lists(st.integers(1, len(BUNDLE) - 1), unique=True, max_size=12), st.booleans())
def test_any_cut_reads_the_same(cuts: list[int], listed: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = write_set(Path(name), parts_at(BUNDLE, cuts))
        if not listed:
            (folder / f"{NAME}.volumes").unlink()
        collected = Collected()
        with open_bundle(folder) as reader:
            reader.extract(collected)
        assert [*map(bytes, collected.contents.values())] == [*FILES.values()]
        verification = bundler.verify(folder)
        assert (verification.faults, str(verification.digest)) == ((), ID)


@pytest.mark.parametrize("named", ["", NAME, f"{NAME}.000", f"{NAME}.003", f"{NAME}.volumes"])
def test_a_set_has_many_names(tmp_path: Path, named: str) -> None:
    path = write_set(tmp_path / "stick", PARTS) / named
    assert str(bundler.inspect(path).digest) == ID
    assert bundler.verify(str(path)).faults == ()
    assert bundler.plan_unpack(path, roots=bundler.find_roots({}, root=tmp_path)).snapshots
    assert unpacked(path, tmp_path / "root") == FILES
    assert [str(bundle) for bundle in bundler.read_listing(path).bundles] == [ID]


@pytest.mark.parametrize("command", ["inspect", "verify", "unpack", "unpack --dry-run"])
def test_every_command_takes_several_folders(tmp_path: Path, command: str) -> None:
    write_set(tmp_path / "a", PARTS, only=[0, 1, 2])
    write_set(tmp_path / "b", PARTS, only=[3, 4])
    done = run(*command.split(), "b", "a", "--json", home=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out


def test_volumes_are_gathered_from_several_folders(tmp_path: Path) -> None:
    one = write_set(tmp_path / "one", PARTS, only=[3, 0])
    two = write_set(tmp_path / "two", PARTS, only=[4, 2])
    three = write_set(tmp_path / "three", PARTS, only=[1, 2])
    (three / f"{NAME}.volumes").unlink()
    assert unpacked([two, three, one], tmp_path / "root") == FILES
    named = [two / f"{NAME}.004", one / NAME, three]
    assert bundler.verify(named).faults == ()
    assert bundler.inspect(named).fault is None


def test_other_files_that_end_in_digits_do_no_harm(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "stick", PARTS)
    (folder / "photo.001").write_bytes(b"a photo")
    (folder / f"{NAME}.005").write_bytes(b"of an older, longer set")
    assert unpacked(folder, tmp_path / "root") == FILES


def test_a_whole_bundle_may_have_the_name_of_a_volume(tmp_path: Path) -> None:
    (tmp_path / "models.124").write_bytes(BUNDLE)
    assert unpacked(tmp_path / "models.124", tmp_path / "root") == FILES


def test_links_lead_to_volumes(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "stick", PARTS)
    (tmp_path / "links").mkdir()
    for path in folder.iterdir():
        (tmp_path / "links" / path.name).symlink_to(path)
    assert unpacked(tmp_path / "links", tmp_path / "root") == FILES


def put(number: int, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / f"{NAME}.{number:03}").write_bytes(content)


def flipped(content: bytes) -> bytes:
    return content[:50] + bytes([content[50] ^ 1]) + content[51:]


def swap(one: int, other: int) -> Callable[[Path], object]:
    return lambda folder: (put(one, PARTS[other])(folder), put(other, PARTS[one])(folder))


def gone(*numbers: int) -> Callable[[Path], object]:
    def do(folder: Path) -> None:
        for number in numbers:
            (folder / f"{NAME}.{number:03}").unlink()

    return do


def listed(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / f"{NAME}.volumes").write_bytes(content)


def twice(number: int, content: bytes) -> Callable[[Path], object]:
    def do(folder: Path) -> None:
        (folder.with_name("beside")).mkdir()
        put(number, content)(folder.with_name("beside"))

    return do


def another(folder: Path) -> None:
    write_set(folder.with_name("beside"), OTHER_PARTS, OTHER_ID)


ALONE = "copy only that one again"
WRONG: dict[str, tuple[Callable[[Path], object], type[BundlerError], str]] = {
    "missing": (gone(2), UnavailableError, f"volume 3 of 5 ({NAME}.002) is missing"),
    "missing first": (gone(0), UnavailableError, f"volume 1 of 5 ({NAME}.000) is missing"),
    "missing last": (gone(4), UnavailableError, f"volume 5 of 5 ({NAME}.004) is missing"),
    "several missing": (gone(0, 3), UnavailableError, "volumes 1, 4 of 5"),
    "damaged": (put(2, flipped(PARTS[2])), DamagedError, f"volume 3 of 5 ({NAME}.002) is damaged: "
                + ALONE),
    "damaged first": (put(0, flipped(PARTS[0])), DamagedError, "volume 1 of 5"),
    "cut short": (put(1, PARTS[1][:-1]), DamagedError, f"volume 2 of 5 ({NAME}.001) ends after "
                  f"{len(PARTS[1]) - 1:,} of {len(PARTS[1]):,} bytes: {ALONE}"),
    "empty": (put(4, b""), DamagedError, "volume 5 of 5 (b.tar.zst.004) ends after 0 of"),
    "too long": (put(1, PARTS[1] + b"!"), DamagedError, f"{len(PARTS[1]):,} bytes: {ALONE}"),
    "mixed up": (swap(1, 2), DamagedError, f"volume 2 of 5 ({NAME}.001) is really volume 3"),
    "mixed up first": (swap(0, 2), DamagedError, f"1 of 5 ({NAME}.000) is really volume 3"),
    "mixed up last": (swap(1, 4), DamagedError, f"2 of 5 ({NAME}.001) is really volume 5"),
    "twice": (twice(1, flipped(PARTS[1])), DamagedError, "is there twice, with different content"),
    "of another bundle": (another, FormatError, "is of another bundle than"),
    "first of another bundle": (put(0, OTHER_PARTS[0]), FormatError, "is of another bundle than"),
    "cut in two ways": (lambda folder: write_set(folder.with_name("beside"), cut(BUNDLE, 3)),
                        FormatError, "cut the same bundle in different places"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("command", ["verify", "unpack"])
def test_each_thing_that_can_be_wrong_is_told_apart(
    tmp_path: Path, command: str, what: str
) -> None:
    do, error, said = WRONG[what]
    folder = write_set(tmp_path / "stick", PARTS)
    do(folder)
    folders = [folder, *tmp_path.glob("beside")]
    if command == "unpack":
        with pytest.raises(error) as raised:
            unpacked(folders, tmp_path / "root")
        message = str(raised.value)
        assert not (tmp_path / "root" / SNAPSHOT).exists()
    else:
        try:
            result = bundler.verify(folders)
        except error as raised_error:
            message = str(raised_error)
        else:
            assert error is (UnavailableError if result.missing_volumes else DamagedError)
            message = result.faults[0].message
            assert result.bad_volumes[0] == result.faults[0].member
    assert said in message
    assert "\n" not in message


def test_verify_names_every_bad_volume_and_no_good_one(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "stick", PARTS)
    put(1, flipped(PARTS[1]))(folder)
    put(4, PARTS[4][:-5])(folder)
    done = run("verify", folder, home=tmp_path)
    first, second, *_, last = done.err.splitlines()
    assert done.code == 4
    assert first == f"bundler: volume 2 of 5 ({NAME}.001) is damaged: {ALONE}"
    assert "volume 5 of 5" in second
    assert last.endswith("right: copy the volumes named again")
    assert bundler.verify(folder).bad_volumes == (f"{NAME}.001", f"{NAME}.004")
    put(1, PARTS[1])(folder)
    put(4, PARTS[4])(folder)
    assert run("verify", folder, home=tmp_path).code == 0


def test_the_same_volume_twice_is_no_fault(tmp_path: Path) -> None:
    folders = [write_set(tmp_path / "one", PARTS), write_set(tmp_path / "two", PARTS, only=[1, 3])]
    assert unpacked(folders, tmp_path / "root") == FILES


@pytest.mark.parametrize(
    ("do", "error", "said"),
    [
        (gone(0), UnavailableError, f"volume 1 ({NAME}.000) is missing"),
        (gone(2), UnavailableError, f"volume 3 ({NAME}.002) is missing"),
        (gone(4), DamagedError, "does not end as it should"),
        (swap(1, 2), DamagedError, "cannot be read"),
    ],
    ids=["first missing", "one missing", "last missing", "mixed up"],
)
def test_without_a_list_less_can_be_told_and_nothing_wrong_gets_in(
    tmp_path: Path, do: Callable[[Path], object], error: type[BundlerError], said: str
) -> None:
    folder = write_set(tmp_path / "stick", PARTS)
    (folder / f"{NAME}.volumes").unlink()
    do(folder)
    with pytest.raises(error, match=re.escape(said)):
        unpacked(folder / NAME, tmp_path / "root")
    assert not (tmp_path / "root" / SNAPSHOT).exists()


HASH, LINES = "0" * 64, [*lines_of(PARTS)]
LISTS: dict[str, bytes] = {
    "empty": b"",
    "no list": b"# a list of something else\n",
    "a whole bundle": BUNDLE,
    "no volumes": list_of([]),
    "of a later version": list_of(PARTS).replace(b"volumes 1", b"volumes 2"),
    "cut": list_of(PARTS)[:-1],
    "with more after it": list_of(PARTS) + b"\n",
    "without the last volume's name": list_of([], lines=[*LINES[:-1], LINES[-1][:80]]),
    "a number left out": list_of([], lines=[*LINES[:2], *LINES[3:]]),
    "a number twice": list_of([], lines=[*LINES[:2], *LINES[1:]]),
    "out of order": list_of([], lines=[LINES[1], LINES[0], *LINES[2:]]),
    "a path": list_of([], lines=[f"# size 1\n{HASH}  ../../etc/passwd.000\n"]),
    "an absolute path": list_of([], lines=[f"# size 1\n{HASH}  /etc/passwd.000\n"]),
    "a path of Windows": list_of([], lines=[f"# size 1\n{HASH}  C:\\b.000\n"]),
    "a long name": list_of([], lines=[f"# size 1\n{HASH}  {'n' * 252}.000\n"]),
    "control characters": list_of([], lines=[f"# size 1\n{HASH}  \x1b[2J.000\n"]),
    "a NUL": list_of([], lines=[f"# size 1\n{HASH}  b\0.000\n"]),
    "no size": list_of([], lines=[f"{HASH}  b.000\n"]),
    "a size of 0": list_of([], lines=[f"# size 0\n{HASH}  b.000\n"]),
    "a negative size": list_of([], lines=[f"# size -1\n{HASH}  b.000\n"]),
    "a size with too many digits": list_of([], lines=[f"# size {'9' * 99}\n{HASH}  b.000\n"]),
    "a short hash": list_of([], lines=[f"# size 1\n{HASH[1:]}  b.000\n"]),
    "too many volumes": list_of([], lines=[f"# size 1\n{HASH}  b.{n:03}\n" for n in range(1001)]),
    "many lines": list_of([], lines=["# nothing\n"] * 50_000),
    "more than may be read": list_of(PARTS) + bytes(1 << 20),
}


@pytest.mark.parametrize("what", LISTS)
def test_a_hostile_list_is_one_line(tmp_path: Path, what: str) -> None:
    folder = write_set(tmp_path / "stick", PARTS)
    listed(LISTS[what])(folder)
    with pytest.raises(FormatError) as raised:
        unpacked(folder, tmp_path / "root")
    message = str(raised.value)
    assert str(folder / f"{NAME}.volumes") in message
    assert message.isprintable()
    assert len(message) < 300 + len(str(folder))
    assert not (tmp_path / "root").exists()


def test_a_list_that_promises_volumes_as_large_as_can_be_takes_no_memory(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "stick", PARTS)
    huge = [f"# size {10**16 - 1}\n{HASH}  b.{n:03}\n" for n in range(1000)]
    listed(list_of([], lines=huge))(folder)
    with pytest.raises(UnavailableError, match=r"volumes 6, 7, .* and 985 more of 1000"):
        unpacked(folder, tmp_path / "root")
    listed(list_of([], lines=huge[:COUNT]))(folder)
    with pytest.raises(DamagedError, match=r"volume 1 of 5 .* ends after"):
        unpacked(folder, tmp_path / "root")


@pytest.mark.parametrize("name", [f"{NAME}.002", f"{NAME}.volumes"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "link to a device", "link to nothing"])
def test_what_is_no_file_counts_as_missing(tmp_path: Path, name: str, kind: str) -> None:
    folder = write_set(tmp_path / "stick", PARTS)
    path = folder / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if "device" in kind else "nothing")
    if name.endswith(".volumes"):
        assert unpacked(folder, tmp_path / "root") == FILES
    else:
        with pytest.raises(UnavailableError, match="volume 3 of 5"):
            unpacked(folder, tmp_path / "root")


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (["nothing"], "cannot open"),
        (["stick", "nothing"], "cannot open"),
        (["stick", "whole"], "a whole bundle is named alone"),
        (["empty"], "is a folder: name the bundle in it"),
        (["two"], "several bundles, name one of them: a.tar.zst, b.tar.zst"),
        (["both"], "has b.tar.zst whole and in volumes"),
        (["stick", "-"], "standard input is one whole bundle"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_mean_one_bundle_is_a_wrong_request(
    tmp_path: Path, named: Sequence[str], said: str
) -> None:
    write_set(tmp_path / "stick", PARTS)
    (tmp_path / "empty").mkdir()
    (tmp_path / "whole").write_bytes(BUNDLE)
    shutil.copytree(tmp_path / "stick", tmp_path / "both")
    (tmp_path / "both" / NAME).write_bytes(BUNDLE)
    shutil.copytree(tmp_path / "stick", tmp_path / "two")
    (tmp_path / "two" / "a.tar.zst.volumes").write_bytes(list_of(PARTS))
    done = run("unpack", *named, home=tmp_path)
    assert (done.code, done.out, done.err.count("\n")) == (RequestError.exit_code, "", 1)
    assert said in done.err


def test_the_name_of_a_bundle_that_is_whole_means_that(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "stick", OTHER_PARTS, OTHER_ID)
    (folder / NAME).write_bytes(BUNDLE)
    assert str(bundler.inspect(folder / NAME).digest) == ID
    assert str(bundler.inspect(folder / f"{NAME}.000").digest) == OTHER_ID


def test_another_id_than_the_one_given_is_refused(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "stick", PARTS)
    done = run("unpack", folder, "--digest", OTHER_ID, home=tmp_path)
    assert (done.code, done.err.count("\n")) == (7, 1)


@needs_tools
def test_tar_and_sha256sum_take_volumes_without_bundler(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "stick", PARTS)
    (tmp_path / "out").mkdir()
    subprocess.run(
        f"cat {folder}/{NAME}.* | tar --zstd -x -C {tmp_path}/out", shell=True, check=True
    )
    blobs = (tmp_path / "out" / "blobs" / "sha256").iterdir()
    assert sorted(path.read_bytes() for path in blobs) == sorted(FILES.values())
    check = ["sha256sum", "-c", f"{NAME}.volumes"]
    done = subprocess.run(check, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{NAME}.{number:03}: OK" for number in range(COUNT)]
    put(2, flipped(PARTS[2]))(folder)
    bad = subprocess.run(check, cwd=folder, capture_output=True, text=True, check=False)
    assert (bad.returncode, f"{NAME}.002: FAILED" in bad.stdout) == (1, True)


@pytest.mark.parametrize("parts", [PARTS, cut(BUNDLE, 1000)], ids=len)
def test_what_was_joined_with_the_list_is_whole(tmp_path: Path, parts: list[bytes]) -> None:
    content = BUNDLE + list_of(parts)
    (tmp_path / NAME).write_bytes(content)
    assert unpacked(tmp_path / NAME, tmp_path / "root") == FILES
    assert bundler.verify(tmp_path / NAME).faults == ()
    assert unpacked(Pipe(content), tmp_path / "piped") == FILES
    (tmp_path / NAME).write_bytes(content[:-1])
    with pytest.raises(DamagedError, match="does not end as it should"):
        unpacked(tmp_path / NAME, tmp_path / "cut")


class Terminal:
    """A command at a terminal, and who sits there."""

    def __init__(self, handle: int, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.shown = b""
        """What came, but for questions that were asked for."""
        self._handle = handle

    def question(self) -> int | None:
        """The number of the volume that is asked for next, from 0; None at the end."""
        while not (found := re.search(rb"insert the stick with volume (\d) of 5.*\n", self.shown)):
            try:
                data = os.read(self._handle, 4096)
            except OSError:  # Linux says so when the other end of a terminal is closed.
                data = b""
            if not data:
                return None
            self.shown += data
        self.shown = self.shown[found.end() :]
        return int(found[1]) - 1

    def press(self, key: bytes) -> None:
        os.write(self._handle, key)


@contextmanager
def at_terminal(home: Path, *arguments: object) -> Iterator[Terminal]:
    """A command of bundler under way, whose input and errors are a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "bundler", *map(str, arguments)],
        cwd=home, env=command_environment(home), stdin=theirs, stdout=subprocess.DEVNULL,
        stderr=theirs,
    ) as process:  # fmt: skip
        os.close(theirs)
        try:
            yield Terminal(ours, process)
        finally:
            process.kill()
    os.close(ours)


@pytest.mark.parametrize("command", ["unpack", "verify"])
def test_with_one_place_for_sticks_they_are_asked_for_one_by_one(
    tmp_path: Path, command: str
) -> None:
    stick = write_set(tmp_path / "stick", PARTS, only=[0])
    asked = []
    with at_terminal(tmp_path, command, stick) as terminal:
        while (number := terminal.question()) is not None:
            if number not in asked:
                asked.append(number)
                terminal.press(b"\n")  # Too early: it is asked for again.
                continue
            shutil.rmtree(stick)
            write_set(stick, PARTS, only=[number])
            terminal.press(b"\n")
        assert terminal.process.wait(30) == 0
    assert set(asked) >= {1, 2, 3, 4}


def test_a_stick_with_another_bundle_is_refused(tmp_path: Path) -> None:
    stick = write_set(tmp_path / "stick", PARTS, only=[0])
    with at_terminal(tmp_path, "unpack", stick) as terminal:
        assert terminal.question() is not None
        write_set(stick, OTHER_PARTS, OTHER_ID)
        terminal.press(b"\n")
        assert terminal.question() is None
        assert terminal.process.wait(30) == FormatError.exit_code


def test_a_volume_that_is_lost_does_not_keep_verify_from_the_others(tmp_path: Path) -> None:
    stick = write_set(tmp_path / "stick", PARTS, only=[0, 1, 2, 4])
    with at_terminal(tmp_path, "verify", stick) as terminal:
        assert terminal.question() == 3
        terminal.press(b"\x04")
        assert terminal.question() is None
        assert terminal.process.wait(30) == UnavailableError.exit_code
        assert b"copy the volumes named" in terminal.shown
        assert b"volume 4 of 5 (b.tar.zst.003) is missing" in terminal.shown


@pytest.mark.parametrize("end", [b"\x04", signal.SIGINT], ids=["end of input", "Ctrl-C"])
def test_a_question_need_not_be_answered(tmp_path: Path, end: bytes | signal.Signals) -> None:
    stick = write_set(tmp_path / "stick", PARTS, only=[0, 1, 2, 4])
    with at_terminal(tmp_path, "unpack", stick) as terminal:
        assert terminal.question() == 3
        if isinstance(end, bytes):
            terminal.press(end)
        else:
            terminal.process.send_signal(end)
        code = UnavailableError.exit_code if isinstance(end, bytes) else 130
        assert terminal.process.wait(30) == code
