"""bundler itself beside a bundle: packed without an index, installed without a network."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import pytest
from bundle_builder import tree_of
from command import Ran, run
from packaging.markers import Marker
from packaging.requirements import Requirement

import bundler
from bundler.carrying import requirements
from bundler.own_wheel import write_own_wheel, write_wheel
from bundler.timeless_zip import write_zip
from bundler.wheels import Target, fetch_wheels, targets_of

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
PATH = f"{sys.base_prefix}/bin:/usr/bin:/bin"


def wheelhouse(folder: Path) -> dict[str, str]:
    """What makes pip find in `folder` what bundler needs, which is made of what is here."""
    folder.mkdir()
    todo, seen = ["bundler"], {"bundler"}
    while todo:
        for text in distribution(todo.pop()).requires or ():
            needed = Requirement(text)
            if needed.name not in seen and (not needed.marker or needed.marker.evaluate()):
                seen.add(needed.name)
                todo.append(needed.name)
    for name in seen - {"bundler"}:
        found = distribution(name)
        code = {
            entry.as_posix(): Path(str(found.locate_file(entry))).read_bytes()
            for entry in found.files or ()
            if not entry.parts[0].endswith((".dist-info", "..")) and entry.suffix != ".pyc"
        }
        write_wheel(found, code, folder)
    return found_in(folder)


def found_in(folder: Path) -> dict[str, str]:
    """What makes pip look into `folder` and nowhere else."""
    return {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}


@dataclass(frozen=True)
class Stick:
    """The folder that is carried over, how it was packed, and a machine without a network."""

    folder: Path
    env: Mapping[str, str]
    packed: Ran
    air_gap: tuple[str, ...]

    def run(self, *command: object, **env: str) -> Ran:
        """How a command ends there, with nothing in its environment but `env`."""
        clean = ["env", "-i", *(f"{name}={value}" for name, value in {"PATH": PATH, **env}.items())]
        done = subprocess.run(
            [*self.air_gap, *clean, *map(str, command)],
            cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode(), done.stdout)

    def copied(self, folder: Path) -> Path:
        """bundler-install in another folder, to be spoilt."""
        shutil.copytree(self.folder / "bundler-install", folder / "copy")
        return folder / "copy"


@pytest.fixture(scope="module")
def stick(tmp_path_factory: pytest.TempPathFactory, air_gap: tuple[str, ...]) -> Stick:
    """A stick with a bundle and bundler."""
    folder = tmp_path_factory.mktemp("stick")
    env = wheelhouse(folder.parent / f"{folder.name}-wheels")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "model.bin").write_bytes(bytes(2 << 20))
    packed = run("pack", "file:model", "--with-bundler", home=folder, env=env)
    return Stick(folder, env, packed, air_gap)


@pytest.fixture(scope="module")
def installed(stick: Stick) -> Path:
    """What install.sh made, by the commands of the README."""
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    if shutil.which("zstd") is None:
        commands = commands.partition("\n")[0]  # The rest is unpack.pyz.
    (stick.folder / "models.tar.zst").symlink_to("bundle.tar.zst")
    home = stick.folder / "home"
    home.mkdir()
    done = stick.run("sh", "-euc", commands, HOME=str(home))
    assert (done.code, done.err) == (0, "")
    assert f'    export PATH="{home}/bundler/bin:$PATH"\n' in done.out
    assert "2 files" in done.out.partition("export")[2] or shutil.which("zstd") is None
    return home / "bundler"


def test_pack_tells_what_it_puts_beside_the_bundle(stick: Stick) -> None:
    assert (stick.packed.code, stick.packed.err) == (0, "")
    told = re.search(
        r"^wrote bundler-install: ([\d.]+) MB, (\d+) wheels for Python (\S+) on (\S+)$",
        stick.packed.out, re.MULTILINE,
    )  # fmt: skip
    assert told is not None
    folder = stick.folder / "bundler-install"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert float(told[1]) == pytest.approx(size / 1e6, rel=0.01)
    assert int(told[2]) == len([*folder.glob("wheels/*.whl")])
    assert told[3] == HERE
    assert "    sh bundler-install/install.sh\n    bundler unpack " in stick.packed.out


def test_the_readme_of_a_stick_tells_of_it(stick: Stick, tmp_path: Path) -> None:
    (tmp_path / "usb").mkdir()
    (tmp_path / "x.json").write_text("{}")
    request = ("pack", "file:x.json", "--with-bundler", "-o", "usb")
    done = run(*request, home=tmp_path, env=stick.env)
    assert (done.code, done.err) == (0, "")
    lines = (tmp_path / "usb" / "README.txt").read_text().splitlines()
    commands = [line.strip() for line in lines if line.startswith("    ")]
    assert commands[0] == "sh FOLDER/bundler-install/install.sh"
    assert commands[1] == "bundler unpack FOLDER/x.json.tar.zst"


def test_the_list_has_every_file_and_the_id_of_the_bundle(stick: Stick) -> None:
    folder = stick.folder / "bundler-install"
    content = (folder / "SHA256SUMS").read_bytes()
    title, *lines = content.decode().splitlines()
    assert title.endswith(str(bundler.inspect(stick.folder / "bundle.tar.zst").digest))
    assert f"SHA256SUMS: {hashlib.sha256(content).hexdigest()}\n" in stick.packed.out
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert {line.split("  ")[1] for line in lines} == files - {"SHA256SUMS"}
    assert stick.run("env", "-C", folder, "sha256sum", "--check", "SHA256SUMS").code == 0


def test_it_installs_and_unpacks_without_a_network(
    stick: Stick, installed: Path, tmp_path: Path
) -> None:
    done = stick.run(installed / "bin/bundler", "unpack", "bundle.tar.zst", "--root", "root")
    assert (done.code, done.err) == (0, "")
    roots = bundler.find_roots(root=tmp_path)
    bundler.unpack(stick.folder / "bundle.tar.zst", roots=roots, env=None)
    assert tree_of(stick.folder / "root/checkpoints") == tree_of(tmp_path / "checkpoints")
    # The same again is no fault: a folder that was installed to is brought up to date.
    again = stick.run("sh", "bundler-install/install.sh", installed)
    assert (again.code, again.err) == (0, "")


def test_pip_refuses_a_wheel_with_a_flipped_byte(
    stick: Stick, installed: Path, tmp_path: Path
) -> None:
    copy = stick.copied(tmp_path)
    pip = (installed / "bin/python", "-m", "pip", "--isolated", "download", "--no-index")
    wanted = ("--require-hashes", "-r", copy / "requirements.txt", "--find-links", copy / "wheels")
    assert stick.run(*pip, *wanted, "--dest", tmp_path / "whole").code == 0
    flip(next(copy.glob("wheels/typer-*")))
    done = stick.run(*pip, *wanted, "--dest", tmp_path / "flipped")
    assert done.code != 0
    assert "DO NOT MATCH THE HASHES" in done.err


def flip(path: Path) -> None:
    """Change one byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def no_venv(folder: Path) -> None:
    """A Python without what Debian has in a package of its own."""
    program = f'case "$*" in *ensurepip*) exit 1 ;; esac\nexec {sys.base_prefix}/bin/python3 "$@"\n'
    (folder / "python3").write_text(f"#!/bin/sh\n{program}")
    (folder / "python3").chmod(0o755)


def other_python(folder: Path) -> None:
    """A Python that the wheels are not for."""
    (folder / "python3").write_text("#!/bin/sh\necho 3.9-linux-x86_64\n")
    (folder / "python3").chmod(0o755)


REFUSED: Mapping[str, tuple[Callable[[Path], object], int, str]] = {
    "a flipped byte in a wheel": (
        lambda f: flip(next(f.glob("copy/wheels/typer-*"))),
        4,
        "copy it",
    ),
    "a wheel that is missing": (lambda f: next(f.glob("copy/wheels/t*")).unlink(), 4, "copy it"),
    "a flipped byte in unpack.pyz": (lambda f: flip(f / "copy/unpack.pyz"), 4, "copy it again"),
    "no venv": (no_venv, 2, "apt install python3-venv"),
    "another Python": (other_python, 2, "no Python here that these wheels are for"),
    "a folder that is in the way": (lambda f: (f / "venv").mkdir(), 6, "name another folder"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_install_says_in_one_line_why_not(stick: Stick, tmp_path: Path, fault: str) -> None:
    spoil, code, words = REFUSED[fault]
    copy = stick.copied(tmp_path)
    spoil(tmp_path)
    tools = {} if not (tmp_path / "python3").exists() else {"PATH": f"{tmp_path}:/nowhere"}
    if tools:
        for name in ("dirname", "sh"):
            (tmp_path / name).symlink_to(str(shutil.which(name)))
    done = stick.run("/bin/sh", copy / "install.sh", tmp_path / "venv", **tools)
    assert (done.code, done.err.count("\n"), done.out) == (code, 1, ""), done.err
    assert done.err.startswith("install.sh: ")
    assert words in done.err
    assert not [*tmp_path.glob("venv/*")]


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_install_wants_a_folder(stick: Stick, arguments: list[str]) -> None:
    done = stick.run("sh", "bundler-install/install.sh", *arguments)
    assert (done.code, done.err) == (
        2, "install.sh: name a folder to install to: sh install.sh FOLDER\n"
    )  # fmt: skip


def test_the_own_wheel_is_the_same_whenever_it_is_made(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made.append(write_own_wheel(tmp_path / name))
    assert made[0].read_bytes() == made[1].read_bytes()
    assert made[0].name == f"bundler-{bundler.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(made[0]) as archive:
        names = archive.namelist()
        assert {"bundler/cli/__init__.py", "bundler/py.typed", "bundler/install.sh"} <= {*names}
        assert not [name for name in names if name.endswith((".pyc", "direct_url.json", ".pth"))]
        for name in names:
            assert os.fsencode(ROOT) not in archive.read(name), name


WRONG: Mapping[str, tuple[tuple[str, ...], int, str]] = {
    "a version that is too old": (("--with-python", "3.9"), 2, "3.9 is no Python that bundler"),
    "a version that is none": (("--with-python", "3.10,three"), 2, "three is no Python"),
    "an unknown platform": (("--with-platform", "vax"), 2, "name one of linux-x86_64"),
    "a pipe": (("-o", "-"), 2, "name one for the bundle with -o"),
    "a device": (("-o", os.devnull), 2, "name one for the bundle with -o"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_request_is_told_before_anything_is_packed(tmp_path: Path, wrong: str) -> None:
    arguments, code, words = WRONG[wrong]
    (tmp_path / "config.json").write_text("{}")
    done = run("pack", "file:config.json", "--with-bundler", *arguments, home=tmp_path)
    assert (done.code, done.err.count("\n"), done.out) == (code, 1, ""), done.err
    assert words in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_versions_of_nothing_are_told(tmp_path: Path) -> None:
    done = run("pack", "file:config.json", "--with-python", "3.12", home=tmp_path)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "are for --with-bundler" in done.err


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "bundler-install").mkdir()
    (tmp_path / "bundler-install" / "mine").touch()
    done = run("pack", "file:config.json", "--with-bundler", home=tmp_path)
    assert (done.code, done.err.count("\n")) == (6, 1)
    assert "is there, and not bundler's: move it away" in done.err
    assert not (tmp_path / "bundle.tar.zst").exists()


def test_without_wheels_the_bundle_is_written_and_it_is_told(stick: Stick, tmp_path: Path) -> None:
    shutil.copytree(stick.folder / "model", tmp_path / "model")
    before = stick.copied(tmp_path).rename(tmp_path / "bundler-install")
    kept = tree_of(before)
    (tmp_path / "empty").mkdir()
    env = found_in(tmp_path / "empty")
    done = run("pack", "file:model", "--with-bundler", home=tmp_path, env=env)
    assert (done.code, done.err.count("\n")) == (3, 2), done.err
    assert f"pip brings no wheels for Python {HERE} on " in done.err
    assert "was written, but bundler itself is not beside it" in done.err
    assert not bundler.verify(tmp_path / "bundle.tar.zst").faults
    assert tree_of(before) == kept
    assert not [*tmp_path.glob(".bundler*")]


def test_without_a_network_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    env = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_RETRIES": "1",
        "PIP_INDEX_URL": "http://127.0.0.1:9/",
    }
    done = run("pack", "file:config.json", "--with-bundler", home=tmp_path, env=env)
    assert (done.code, done.err.count("\n")) == (3, 2), done.err
    assert "pip reaches no index to bring bundler's wheels from: check the network" in done.err


def test_without_pip_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    for entry in Path(distribution("packaging").locate_file("")).iterdir():  # type: ignore[arg-type]
        if not entry.name.startswith("pip"):
            (tmp_path / "packages" / entry.name).symlink_to(entry)
    (tmp_path / "config.json").write_text("{}")
    command = ["-S", "-m", "bundler", "pack", "file:config.json", "--with-bundler"]
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": f"{tmp_path}/packages:{ROOT}", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "-m ensurepip" in done.stderr


def test_a_dry_run_brings_nothing_and_tells_the_same(stick: Stick, tmp_path: Path) -> None:
    shutil.copytree(stick.folder / "model", tmp_path / "model")
    arguments = ("pack", "file:model", "--with-bundler", "--dry-run", "--json")
    done = run(*arguments, home=tmp_path, env=stick.env)
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)["install"]
    wheels = stick.folder / "bundler-install" / "wheels"
    assert {w["name"]: w["size"] for w in told["wheels"]} == {
        path.name: path.stat().st_size for path in wheels.iterdir()
    }
    assert not [*tmp_path.glob("*bundle*")]


def made_up(
    folder: Path, name: str, *needs: str, version: str = "1", python: str = ">=3.10"
) -> Path:
    """A wheel with nothing in it but what it needs."""
    about = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Python: {python}", *(f"Requires-Dist: {need}" for need in needs)]
    path = folder / f"{name}-{version}-py3-none-any.whl"
    wheel = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    metadata = "\n".join([*lines, ""]).encode()
    files = {f"{about}/METADATA": metadata, f"{about}/WHEEL": wheel, f"{about}/RECORD": b""}
    write_zip(path, files)
    return path


def test_each_machine_gets_what_it_needs_and_not_what_this_one_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip by itself looks at the machine it runs on for what is needed only on some."""
    links, folder = tmp_path / "links", tmp_path / "folder"
    links.mkdir()
    folder.mkdir()
    root = made_up(
        tmp_path, "root", "old; python_version < '3.11'", "new; python_version >= '3.13'",
        "mac[more]; sys_platform == 'darwin'", "both", "never; extra == 'none'",
    )  # fmt: skip
    made_up(links, "old", "older")
    made_up(links, "older")
    made_up(links, "new")
    made_up(links, "mac", "deep; extra == 'more'")
    made_up(links, "deep")
    made_up(links, "both", version="1")
    made_up(links, "both", version="2", python=">=3.13")
    for name, value in found_in(links).items():
        monkeypatch.setenv(name, value)
    linux, mac = Target("3.10", "linux-x86_64"), Target("3.13", "macos-arm64")
    assert targets_of("3.13,3.10", "linux-x86_64") == (linux, Target("3.13", "linux-x86_64"))
    wheels = fetch_wheels(root, (), (linux, mac), folder)
    expected = {
        linux: {"root 1", "old 1", "older 1", "both 1"},
        mac: {"root 1", "new 1", "mac 1", "deep 1", "both 2"},
    }
    for target, names in expected.items():
        assert {f"{w.name} {w.version}" for w in wheels if target in w.targets} == names
        told = set()
        for line in requirements(wheels, (linux, mac)).replace("\\\n", "").splitlines():
            pinned, _, marker = line.partition("--hash")[0].partition(";")
            if not marker.strip() or Marker(marker).evaluate(target.environment):
                told.add(pinned.strip().replace("==", " "))
        assert told == names
    assert {path.name for path in folder.iterdir()} == {wheel.path.name for wheel in wheels}
