"""unpack.pyz, where there is no bundler, no package, no network and nothing in the environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard
from bundle_builder import FILES, Pipe, tree_of
from command import Ran, peak_memory
from memory_source import make_bundle
from zstd_of_python import add_compression_zstd

import bundler
from bundler.digest import Digest
from bundler.unpacker import write_unpacker

BUNDLED = {"acme/tiny": FILES, "acme/other": {"config.json": b"{}", "big.bin": bytes(3 << 20)}}
ZSTD = shutil.which("zstd")
needs_zstd = pytest.mark.skipif(ZSTD is None, reason="no zstd on this system")


@dataclass(frozen=True)
class Machine:
    """What there is of Python and zstd, and the folder with the bundle and unpack.pyz."""

    home: Path
    python: tuple[str, ...]
    env: Mapping[str, str]
    air_gap: tuple[str, ...]

    def command(self, *arguments: object, **env: str) -> list[str]:
        """What runs unpack.pyz there, with nothing else in its environment."""
        unpacker = str(self.home.parent / "unpack.pyz")
        clean = ["env", "-i", *(f"{name}={value}" for name, value in {**self.env, **env}.items())]
        return [*clean, *self.python, "-W", "error", unpacker, *map(str, arguments)]

    def run(self, *arguments: object, input: bytes | None = None, **env: str) -> Ran:
        """How unpack.pyz with these arguments ends."""
        done = subprocess.run(
            [*self.air_gap, *self.command(*arguments, **env)], cwd=self.home, input=input or b"",
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode(), done.stdout)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle and unpack.pyz."""
    folder = tmp_path_factory.mktemp("stick")
    make_bundle(folder / "b.tar.zst", BUNDLED)
    write_unpacker(folder / "unpack.pyz")
    (folder / "packages").mkdir()
    package = Path(zstandard.__file__).parent
    (folder / "packages" / "zstandard").symlink_to(package)
    add_compression_zstd(folder / "library")
    return folder


def machine_of(name: str, shelf: Path, air_gap: tuple[str, ...]) -> Machine:
    """A machine with nothing but Python and the zstd of that name."""
    home = shelf / name
    home.mkdir(exist_ok=True)
    python: tuple[str, ...] = (sys.executable, "-I", "-S")
    env = {"HOME": str(home), "PATH": "/nowhere"}
    if name == "package":
        python = (sys.executable, "-S")
        env["PYTHONPATH"] = str(shelf / "packages")
    elif name == "standard":
        if found := shutil.which("python3.14"):
            python = (found, "-I", "-S")
        else:
            python = (sys.executable, "-S")
            env["PYTHONPATH"] = str(shelf / "library")
    elif ZSTD is None:
        pytest.skip("no zstd on this system")
    else:
        env["PATH"] = str(Path(ZSTD).parent)
    return Machine(home, python, env, air_gap)


@pytest.fixture(params=["package", "standard", "program"])
def machine(request: pytest.FixtureRequest, shelf: Path, air_gap: tuple[str, ...]) -> Machine:
    """A machine with each zstd that there is."""
    return machine_of(request.param, shelf, air_gap)


@pytest.fixture
def plain(shelf: Path, air_gap: tuple[str, ...]) -> Machine:
    """A machine with the program zstd."""
    return machine_of("program", shelf, air_gap)


def test_it_unpacks_as_bundler_does(machine: Machine, tmp_path: Path) -> None:
    roots = bundler.find_roots(root=tmp_path / "root", checkpoints=tmp_path / "plain")
    bundle = machine.home.parent / "b.tar.zst"
    result = bundler.unpack(bundle, roots=roots, checkpoints=True, env=tmp_path / "o.env")
    where = ("--root", "root", "--checkpoints", "plain", "--env", "o.env")
    done = machine.run("unpack", "../b.tar.zst", *where, "--digest", result.digest)
    assert (done.code, done.err) == (0, "")
    assert f"source {machine.home / 'o.env'}" in done.out
    made = {"root", "plain", "o.env"}
    assert made <= {path.name for path in machine.home.iterdir()}
    for name in ("root/huggingface/hub", "plain"):
        theirs, ours = tree_of(machine.home / name), tree_of(tmp_path / name)
        assert theirs == ours
        assert ours
    env = (machine.home / "o.env").read_text()
    assert env.replace(str(machine.home), "") == (tmp_path / "o.env").read_text().replace(
        str(tmp_path), ""
    )
    again = machine.run("unpack", "../b.tar.zst", *where)
    assert (again.code, again.err) == (0, "")
    assert "everything is there already" in again.out


def test_it_takes_a_pipe_and_a_part_of_a_bundle(machine: Machine) -> None:
    content = (machine.home.parent / "b.tar.zst").read_bytes()
    done = machine.run("unpack", "-", input=content, BUNDLER_ONLY="acme/tiny", BUNDLER_ROOT="part")
    assert (done.code, done.err) == (0, "")
    found = [p.name for p in (machine.home / "part/huggingface/hub").glob("models--*")]
    assert found == ["models--acme--tiny"]


def test_it_inspects_and_verifies(machine: Machine) -> None:
    bundle = machine.home.parent / "b.tar.zst"
    inspected = machine.run("inspect", "../b.tar.zst")
    verified = machine.run("verify", "../b.tar.zst")
    assert (inspected.code, inspected.err, verified.code, verified.err) == (0, "", 0, "")
    digest = bundler.inspect(bundle).digest
    assert inspected.out.endswith(f"id {digest}\n")
    assert verified.out == f"all 5 blobs (3.15 MB) are right\nid {digest}\n"


def test_a_volume_that_is_lost_is_named_as_such(machine: Machine, tmp_path: Path) -> None:
    files = {"config.json": b"{}", "w.bin": os.urandom(2_000_000)}
    make_bundle(tmp_path / "b.zst", {"acme/tiny": files}, split_size=500_000)
    (tmp_path / "b.zst.002").unlink()
    done = machine.run("verify", tmp_path)
    lost = "volume 3 of 5 (b.zst.002) is missing"
    first, second, last = done.err.splitlines()
    assert (done.code, first) == (3, f"bundler: {lost}")
    assert (
        second == f"bundler: w.bin of acme/tiny cannot be read: the bundle cannot be read: {lost}"
    )
    assert "1 blob right" in last


def test_it_says_what_it_takes(plain: Machine) -> None:
    for arguments in ((), ("--help",), ("unpack", "--help")):
        done = plain.run(*arguments)
        assert (done.code, done.err) == (0, "")
        assert "usage: unpack.pyz" in done.out
    assert plain.run("--version").out == f"bundler {bundler.__version__}\n"


def flipped(bundle: bytes) -> bytes:
    """Damaged within the last blob."""
    return bundle[:-200] + bytes([bundle[-200] ^ 1]) + bundle[-199:]


WRONG: Mapping[str, tuple[Callable[[bytes], bytes], tuple[str, ...], int]] = {
    "a flipped byte": (flipped, (), 4),
    "cut short": (lambda bundle: bundle[:-300], (), 4),
    "cut within its manifest": (lambda bundle: bundle[:99], (), 4),
    "something after it": (lambda bundle: bundle + b"more", (), 4),
    "another bundle": (lambda bundle: bundle, ("--digest", "0" * 64), 7),
    "no bundle": (lambda _: b"PK\x03\x04", (), 5),
    "no digest": (lambda bundle: bundle, ("--digest", "abc"), 2),
    "a key that nothing here can use": (lambda b: b, ("--verify-key", "nobody.pem"), 2),
    "an unknown option": (lambda bundle: bundle, ("--fast",), 2),
    "an unknown model": (lambda bundle: bundle, ("--only", "acme/none"), 2),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_gets_one_line_and_installs_nothing(plain: Machine, wrong: str) -> None:
    alter, arguments, code = WRONG[wrong]
    bundle = plain.home.parent / "wrong.tar.zst"
    bundle.write_bytes(alter((plain.home.parent / "b.tar.zst").read_bytes()))
    done = plain.run("unpack", bundle, "--root", "none", "--env", "none.env", *arguments)
    assert (done.code, done.err.count("\n"), done.out) == (code, 1, ""), done.err
    assert done.err.startswith("bundler: ")
    assert not (plain.home / "none").exists()
    assert not (plain.home / "none.env").exists()


def test_a_bundle_without_a_name_is_not_the_one_that_is_here(plain: Machine) -> None:
    done = plain.run("unpack", "", "--root", "none")
    assert (done.code, done.err) == (2, "bundler: the name of the bundle is empty: name a file\n")


def test_verify_names_each_bad_member(plain: Machine) -> None:
    bundle = plain.home.parent / "wrong.tar.zst"
    good = (plain.home.parent / "b.tar.zst").read_bytes()
    bundle.write_bytes(flipped(good))
    done = plain.run("verify", bundle)
    assert (done.code, done.err.count("\n")) == (4, 2), done.err
    assert "big.bin of acme/other" in done.err
    # The package reads the others of the same file, and says the same of this one.
    with_package = bundler.verify(Pipe(flipped(good)))
    assert [fault.files for fault in with_package.faults] == [("big.bin of acme/other",)]


FAILING = {
    "killed": "kill -9 $$",
    "killed half-way": "head -c 2000 >/dev/null; kill -9 $$",
    "failing": "echo 'zstd : it has a fault' >&2; exit 1",
    "silent": "exit 0",
    "gone after some content": f"head -c 700 | {ZSTD} -dcq 2>/dev/null",
}


@needs_zstd
@pytest.mark.parametrize("how", FAILING)
def test_a_zstd_that_fails_is_told_as_damage(plain: Machine, tmp_path: Path, how: str) -> None:
    (tmp_path / "zstd").write_text(f"#!/bin/sh\n{FAILING[how]}\n")
    (tmp_path / "zstd").chmod(0o755)
    done = plain.run("unpack", "../b.tar.zst", "--root", "none", PATH=f"{tmp_path}:/usr/bin:/bin")
    assert (done.code, done.err.count("\n"), done.out) == (4, 1, ""), done.err
    assert not (plain.home / "none").exists()


def test_without_any_zstd_it_says_what_to_do(plain: Machine) -> None:
    done = plain.run("verify", "../b.tar.zst", PATH="/nowhere")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "the program zstd, or use Python 3.14" in done.err


def test_memory_is_constant(plain: Machine, tmp_path: Path) -> None:
    make_bundle(tmp_path / "big.tar.zst", {"acme/big": {"big.bin": bytes(100 << 20)}})
    command = plain.command("verify", tmp_path / "big.tar.zst")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert peak_memory(process) < 60 << 20
        assert process.stdout is not None
        assert b"all 1 blob (105 MB) are right" in process.stdout.read()


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.9"])
def test_an_old_python_is_told_that_it_is_one(shelf: Path, version: str) -> None:
    python = shutil.which(f"python{version}")
    if python is None or subprocess.run([python, "-V"], capture_output=True).returncode:
        pytest.skip(f"no Python {version} on this system")
    done = subprocess.run(
        [python, shelf / "unpack.pyz", "verify", "b.tar.zst"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    needed = f"unpack.pyz: Python 3.10 or newer is needed, this is {version}\n"
    assert done.stderr == needed


def test_the_same_bundler_makes_the_same_file(shelf: Path, tmp_path: Path) -> None:
    write_unpacker(tmp_path / "again.pyz")
    content = (shelf / "unpack.pyz").read_bytes()
    assert Digest.of(content) == Digest.of((tmp_path / "again.pyz").read_bytes())
    assert os.fsencode(Path(bundler.__file__).parent.parent) not in content
