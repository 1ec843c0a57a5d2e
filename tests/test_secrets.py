"""What stays home: tokens and passwords everywhere, and in bundles all that tells who packed them.

Marked values are put wherever a user has them, every command is run, well and badly, and all that
was told or written is searched for the marks.
"""

from __future__ import annotations

import base64
import io
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zstandard
from command import NOWHERE, command_environment
from loopback import Fault
from loopback_hub import LoopbackHub
from loopback_proxy import LoopbackProxy

TOKEN = "hf_ThisTokenStaysHome"
PASSWORD = "ThisPasswordStaysHome"
LOGIN = f"me:{PASSWORD}"
HOST, USER, FOLDER = "this-host-stays", "this-user-stays", "this-folder-stays"
SECRETS = (TOKEN, PASSWORD, base64.b64encode(LOGIN.encode()).decode())
WEIGHTS = struct.pack("<Q", 9000) + b"{}".ljust(9000)
FILES = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": WEIGHTS}
RENAMED = ("sh", "-c", f'hostname {HOST} && exec "$@"', "sh")
DIAL = "import socket; socket.create_connection(('192.0.2.1', 80))"


@dataclass
class Machine:
    """A user's machine, and all that commands have told there."""

    home: Path
    folder: Path
    env: Mapping[str, str]
    before: tuple[str, ...] = ()
    """What a command is run by."""
    said: dict[str, bytes] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)

    def run(self, *arguments: object, **env: str) -> None:
        words = [*map(str, arguments)]
        done = subprocess.run(
            [*self.before, sys.executable, "-m", "bundler", *words],
            cwd=self.folder,
            env={**command_environment(self.home), **self.env, **env},
            capture_output=True, timeout=120, check=False,
        )  # fmt: skip
        name = " ".join([*words, *env])
        self.said[name], self.codes[name] = done.stdout + done.stderr, done.returncode

    @property
    def failed(self) -> dict[str, bytes]:
        """What failed, and what was told then."""
        return {name: self.said[name] for name, code in self.codes.items() if code}

    def kept(self) -> dict[str, bytes]:
        """Everything that was told, and every file; but that in which the user has the token."""
        files = (path for path in self.home.rglob("*") if path.is_file() and path.name != "token")
        return self.said | {str(path): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def renamed() -> tuple[str, ...]:
    """What runs a command on a machine of the marked name, where the system allows that."""
    for command in (("unshare", "-u", *RENAMED), ("unshare", "-ru", *RENAMED)):
        try:
            if not subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
                return command
        except FileNotFoundError:
            break
    return ()


@pytest.fixture(scope="module")
def packing(
    renamed: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """The machine that packs, after all has been done there, and has gone well or wrong."""
    home = tmp_path_factory.mktemp("home") / USER
    folder, token_file = home / FOLDER, home / ".cache" / "huggingface" / "token"
    folder.mkdir(parents=True)
    (folder / "weights.pth").write_bytes(b"weights")
    token_file.parent.mkdir(parents=True)
    token_file.write_text(TOKEN)
    whose = {"USER": USER, "LOGNAME": USER, "HOSTNAME": HOST, "HF_DEBUG": "1"}
    proxied = LoopbackProxy(login=("me", PASSWORD))
    with LoopbackHub() as hub, LoopbackHub(mirror_of=hub) as mirror, proxied as proxy:
        hub.token = TOKEN
        hub.add("acme/private", FILES, private=True)
        hub.add("acme/gated", FILES | {"vocab.txt": b"a\n"}, gated=True)
        others = {"tokenizer.json": b"[]", "model.safetensors": WEIGHTS[::-1]}
        hub.add("acme/cut", FILES | others, private=True)
        hub.add("acme/rows", {"rows.csv": b"a,b\n1,2\n"}, kind="dataset")
        hub.faults.append(Fault(r"acme/cut/resolve/.*tokenizer", times=99, status=403))
        machine = Machine(home, folder, {**whose, "HF_ENDPOINT": hub.url}, renamed)
        models = ("acme/private", "acme/gated")
        behind_login = {"HTTP_PROXY": proxy.url_with_login}
        at_login = mirror.url.replace("//", f"//{LOGIN}@")

        machine.run("pack", *models, "file:weights.pth", "dataset:acme/rows", "-o", "1.tar.zst",
                    HF_TOKEN=TOKEN)  # fmt: skip
        machine.run("pack", *models, "-o", "2.tar.zst", "--store", "proxied", **behind_login)
        machine.run("pack", "acme/private", "-o", "3.tar.zst", "--store", "mirrored", "--json",
                    "--mirror", f"{hub.url}={at_login}")  # fmt: skip
        machine.run("pack", *models, "--dry-run", "--json")
        machine.run("pack", *models, "--dry-run", "--mirror", f"{hub.url}={at_login}")
        for command in ("store", "inspect 1.tar.zst", "verify 1.tar.zst", "check acme/private"):
            machine.run(*command.split())
        assert machine.failed.keys() == {"check acme/private"}
        assert [r for r in mirror.requests if "Basic" in r.headers.get("authorization", "")]

        hub.cdn_honours_range = False  # So that it never gets further than this.
        hub.faults.append(Fault("", server="cdn", times=99, cut=4000))
        machine.run("pack", "acme/cut", "-o", "4.tar.zst", "--retries", 2)
        assert list((home / ".cache" / "bundler" / "partial").iterdir())
        machine.run("pack", "acme/cut", "--retries", 1, "--store", "new",
                    HTTP_PROXY=proxy.url_with_login.replace("me:", "you:"))  # fmt: skip
        machine.run("pack", "acme/private", "--endpoint", f"https://{LOGIN}@hub.example")
        machine.run("pack", "acme/private", HF_ENDPOINT=f"https://{LOGIN}@hub.example")
        for place in ("http://{}@127.0.0.1:9", "http://{}@h:x", "{}@h", "//{}/@h"):
            mirrored = f"{hub.url}={place.format(LOGIN)}"
            machine.run("pack", "acme/cut", "--retries", 1, "--mirror", mirrored)
        machine.run("pack", "acme/private", "--mirror", f"http://{LOGIN}@h=http://h:x")
        machine.run("pack", "acme/private", "--token-for", f"https://{LOGIN}@hub.example")
        machine.run("pack", "acme/none", "acme/private@none", "acme/gated", HF_TOKEN=f"{TOKEN}x")
        machine.run("pack", "acme/private", HF_TOKEN=f"{TOKEN}\u200b")
        for scheme in ("HTTP", "HTTPS", "ALL"):
            machine.run("pack", "acme/private", **{f"{scheme}_PROXY": f"http://{LOGIN}@h:x"})
        machine.run("pack", f"https://{LOGIN}@h/x.pth", f"https://{LOGIN}/@h/x.pth")
        machine.run("check", f"https://{LOGIN}@h/x.pth")
        yield machine


@pytest.fixture(scope="module")
def target(packing: Machine, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Another machine, with a token of the same name, after all has been done there."""
    home = tmp_path_factory.mktemp("target")
    machine = Machine(home, home, {**NOWHERE, "HF_TOKEN": TOKEN})
    shutil.copy(packing.folder / "1.tar.zst", home / "b")
    models = ("acme/private", "acme/gated")
    machine.run("inspect", "b")
    machine.run("inspect", "b", "--json")
    machine.run("unpack", "b", "--root", "r", "--checkpoints", "c", "--dry-run")
    machine.run("unpack", "b", "--root", "r", "--checkpoints", "c", "--json")
    roots = ("--root", "r")
    for words in ("verify b", "verify", "installed --json", "check --hash", "remove --dry-run"):
        command, *options = words.split()
        named = models if command in ("check", "remove") else ()
        machine.run(command, *named, *options, *(() if "b" in options else roots))
    for form in ("sh", "docker", "json"):
        machine.run("env", "--format", form, *roots)
    assert machine.failed == {}
    machine.run("run", "--strict", *roots, "--", sys.executable, "-c", DIAL)
    machine.run("unpack", "b", "--root", "r", "--digest", f"sha256:{'0' * 64}")
    return machine


def found(mark: str, where: Mapping[str, bytes]) -> list[str]:
    """The names of all that has a mark in it, in whatever case."""
    return [name for name, text in where.items() if mark.lower().encode() in text.lower()]


def test_what_goes_wrong_is_told(packing: Machine, target: Machine) -> None:
    """So that the searches have something to search."""
    assert len(packing.failed) > 15
    assert all(b"bundler: " in text for text in packing.failed.values())
    assert 1 not in packing.codes.values()
    assert len(packing.kept()) > 50
    assert [name.split()[0] for name in target.failed] == ["run", "unpack"]


@pytest.mark.parametrize("secret", SECRETS, ids=["token", "password", "password in a header"])
def test_no_secret_is_told_or_kept(packing: Machine, target: Machine, secret: str) -> None:
    assert found(secret, packing.kept()) == []
    assert found(secret, target.kept()) == []


@pytest.mark.parametrize("mark", [*SECRETS, USER, HOST, FOLDER, "127.0.0.1", "localhost"])
def test_a_bundle_tells_nothing_of_who_packed_it(packing: Machine, mark: str) -> None:
    bundles = {path.name: path.read_bytes() for path in packing.folder.glob("*.tar.zst")}
    assert sorted(bundles) == ["1.tar.zst", "2.tar.zst", "3.tar.zst"]
    reader = zstandard.ZstdDecompressor().stream_reader
    tars = {
        f"{name}, decompressed": reader(io.BytesIO(content), read_across_frames=True).read()
        for name, content in bundles.items()
    }
    assert found("blobs/sha256/", tars) == [*tars]
    assert found(mark, bundles | tars) == []


@pytest.mark.parametrize("mark", [USER, HOST, FOLDER])
def test_nothing_of_who_packed_it_comes_to_the_target(target: Machine, mark: str) -> None:
    assert found(mark, target.kept()) == []
