"""The command line itself: words, tables, terminals and signals."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from command import command_environment, run, start
from loopback import Fault
from loopback_hub import LoopbackHub
from memory_source import commit_hash, make_bundle

import bundler
from bundler.errors import amount
from bundler.wording import printable

MODELS = {
    "acme/tiny": {"config.json": b"{}", "model.safetensors": b"w" * 70_000},
    "acme/other": {"config.json": b"[]", "pytorch_model.bin": b"b" * 50},
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of two models."""
    path = tmp_path / "b.tar.zst"
    make_bundle(path, MODELS, aliases={"tiny": "acme/tiny"}, asked=("tiny", "acme/other"))
    return path


def test_help_comes_without_arguments(tmp_path: Path) -> None:
    done = run(home=tmp_path)
    assert "pack" in done.out + done.err
    assert run("--help", home=tmp_path).code == 0


def test_a_reader_that_has_seen_enough_is_no_fault(bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bundler", "inspect", str(bundle)]
    with subprocess.Popen(
        command, cwd=tmp_path, env=command_environment(tmp_path) | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_names_that_a_terminal_cannot_show_are_no_fault(tmp_path: Path) -> None:
    make_bundle(tmp_path / "b.tar.zst", {"acme/tiny": {"模型.txt": b"", "a.bin": b""}})
    plain = {"PYTHONIOENCODING": "ascii"}
    for arguments in (["inspect", "--json"], ["unpack", "--dry-run", "--json"], ["unpack"]):
        done = run(arguments[0], "b.tar.zst", *arguments[1:], home=tmp_path, env=plain)
        assert (done.code, done.err) == (0, "")
        assert done.out


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_streams_that_are_closed_are_no_fault(bundle: Path, tmp_path: Path, closed: str) -> None:
    command = f"exec {sys.executable} -m bundler inspect {bundle} {closed}"
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=command_environment(tmp_path),
        capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("option", ["--root", "--hf-home", "--torch-home"])
def test_a_variable_that_is_not_set_names_no_folder(
    bundle: Path, tmp_path: Path, option: str
) -> None:
    done = run("unpack", bundle, option, "", home=tmp_path)
    assert (done.code, done.err) == (2, f"bundler: {option} is empty: name a folder\n")


def test_the_version_is_told(tmp_path: Path) -> None:
    assert run("--version", home=tmp_path).out == f"bundler {bundler.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [["--bogus"], ["bogus"], ["inspect"], ["inspect", "a", "b"], ["unpack", "b", "--jobs", "x"],
     ["inspect", "b", "--digest", "sha256:1"]],
)  # fmt: skip
def test_a_wrong_command_line_is_one_line_and_exit_code_2(
    tmp_path: Path, arguments: list[str]
) -> None:
    done = run(*arguments, home=tmp_path)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("bundler: ")


class TestInspect:
    def test_the_table_has_what_one_wants_to_know(self, bundle: Path, tmp_path: Path) -> None:
        done = run("inspect", bundle, home=tmp_path)
        lines = done.out.splitlines()
        assert lines[0].split() == [
            "commit", "files", "size", "licence", "formats", "layout", "model",
        ]  # fmt: skip
        commit = commit_hash(MODELS["acme/tiny"])[:12]
        cells = [commit, "2", "70", "kB", "mit", "safetensors", "hf-cache", "tiny"]
        assert cells in [line.split() for line in lines]
        assert "tiny is also found as acme/tiny" in lines
        assert lines[-1].endswith(str(bundler.inspect(bundle).digest))

    def test_what_was_left_out_is_told(self, hub: LoopbackHub, tmp_path: Path) -> None:
        hub.add("acme/tiny", {"model.safetensors": b"w", "tf_model.h5": b"t" * 5000})
        run("pack", "acme/tiny", home=tmp_path, env={"HF_ENDPOINT": hub.url})
        done = run("inspect", "bundle.tar.zst", home=tmp_path)
        assert "left out: tf_model.h5 (the same weights in another form: TensorFlow" in done.out

    def test_json_is_the_manifest_byte_for_byte(self, bundle: Path, tmp_path: Path) -> None:
        done = run("inspect", bundle, "--json", home=tmp_path)
        assert done.raw == bundler.inspect(bundle).manifest_bytes
        assert json.loads(done.out)["format_version"] == 1

    def test_a_cut_bundle_is_shown_but_not_for_a_whole_one(
        self, bundle: Path, tmp_path: Path
    ) -> None:
        whole = run("inspect", bundle, home=tmp_path)
        bundle.write_bytes(bundle.read_bytes()[:-1])
        cut = run("inspect", bundle, home=tmp_path)
        assert (cut.code, cut.out, cut.err.count("\n")) == (4, whole.out, 1)
        assert "it was not copied whole, copy it again" in cut.err

    def test_a_pipe_will_do(self, bundle: Path, tmp_path: Path) -> None:
        named = run("inspect", bundle, home=tmp_path)
        piped = run("inspect", "-", home=tmp_path, input=bundle.read_bytes())
        assert (piped.code, piped.out) == (0, named.out)

    def test_another_id_is_refused(self, bundle: Path, tmp_path: Path) -> None:
        done = run("inspect", bundle, "--digest", "sha256:" + "0" * 64, home=tmp_path)
        assert (done.code, done.out, done.err.count("\n")) == (7, "", 1)


class TestVerify:
    def test_a_good_bundle(self, bundle: Path, tmp_path: Path) -> None:
        done = run("verify", bundle, home=tmp_path)
        assert (done.code, done.err) == (0, "")
        assert "all 4 blobs (70.1 kB) are right" in done.out

    def test_of_a_cut_bundle_it_tells_what_is_whole(self, bundle: Path, tmp_path: Path) -> None:
        large = {"acme/big": {"config.json": b"{}", "a.bin": os.urandom(2 << 20)}}
        make_bundle(bundle, large)
        bundle.write_bytes(bundle.read_bytes()[:-1_000_000])
        done = run("verify", bundle, home=tmp_path)
        first, second, last = done.err.splitlines()
        assert (done.code, done.out) == (4, "")
        assert "it was not copied whole, copy it again" in first
        assert "a.bin of acme/big" in second
        assert last.endswith("2 faults in " + str(bundle) + ", 1 blob right: copy the bundle again")

    @pytest.mark.parametrize("json_", [True, False])
    def test_a_damaged_bundle(self, bundle: Path, tmp_path: Path, json_: bool) -> None:
        content = bytearray(bundle.read_bytes())
        content[-200] ^= 1  # in the frame of the small blobs, before a table of 41 bytes
        bundle.write_bytes(content)
        done = run("verify", bundle, *["--json"] * json_, home=tmp_path)
        assert done.code == 4
        assert "model.safetensors of tiny" in done.err
        assert done.err.splitlines()[-1].endswith("copy the bundle again")
        if json_:
            faults = json.loads(done.out)["faults"]
            assert ["model.safetensors of tiny"] in [fault["files"] for fault in faults]

    def test_a_missing_file(self, tmp_path: Path) -> None:
        done = run("verify", "nothing.tar.zst", home=tmp_path)
        assert (done.code, done.err.count("\n")) == (2, 1)


@pytest.mark.parametrize(("command", "said"), [("verify", "verifying"), ("unpack", "unpacking")])
def test_progress_is_for_terminals(bundle: Path, tmp_path: Path, command: str, said: str) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 80, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "bundler", command, bundle],
        cwd=tmp_path, env=command_environment(tmp_path), stdout=subprocess.DEVNULL, stderr=theirs,
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 4096):
                shown += data
        except OSError:  # Linux says so when the other end of a terminal is closed.
            pass
    os.close(ours)
    assert process.returncode == 0
    assert said in shown.decode()
    assert "B/s" in shown.decode()
    assert run(command, bundle, home=tmp_path).err == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_pack_says_so_and_leaves_no_bundle(
    hub: LoopbackHub, tmp_path: Path, number: signal.Signals
) -> None:
    hub.add("acme/tiny", {"model.safetensors": os.urandom(300_000)})
    hub.faults.append(Fault("model", times=99, cut=200_000, stall=True, server="cdn"))
    partial = tmp_path / ".cache" / "bundler" / "partial"
    with start("pack", "acme/tiny", home=tmp_path, env={"HF_ENDPOINT": hub.url}) as process:
        while sum(path.stat().st_size for path in partial.glob("*")) < 200_000:
            assert process.poll() is None
        process.send_signal(number)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err.decode() == "bundler: interrupted; the same command goes on from here\n"
    assert [path.name for path in tmp_path.iterdir()] == [".cache"]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1234, "1.23 kB"), (99_440, "99.4 kB"),
     (123_456, "123 kB"), (999_499, "999 kB"), (999_500, "1 MB"), (4_000_000_000, "4 GB"),
     (None, "?")],
)  # fmt: skip
def test_sizes_are_as_on_a_label(size: int | None, text: str) -> None:
    assert amount(size) == text


def test_a_terminal_obeys_nothing_that_is_printed() -> None:
    assert printable("a\x1b[31m\x07é\nb\u202ec") == "a\\x1b[31m\\x07é\nb\\u202ec"
