"""What may import what: the floors, and what each command is spared."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest
from command import command_environment
from loopback_hub import LoopbackHub
from memory_source import make_bundle

import bundler

ROOT = Path(__file__).parent.parent
NETWORK = {
    "huggingface_hub", "httpx2", "httpx", "requests", "urllib.request", "http.client", "ssl",
    "asyncio", "bundler.hub", "bundler.client", "bundler.proxies",
}  # fmt: skip
LIBRARIES = {
    "torch", "numpy", "transformers", "datasets", "pyarrow", "timm", "yaml", "filelock", "fsspec",
    "cryptography", "pydantic", "bundler.keys", "bundler.signature",
}  # fmt: skip
DISPLAY = {"rich", "pygments", "tqdm", "multiprocessing"}
SPARED = NETWORK | LIBRARIES | DISPLAY
"""What no command needs whose output is no terminal, and which asks nothing of a network."""
PACKING = {
    "xxhash", "packaging", "bundler.archive_writer", "bundler.packing", "bundler.planning",
    "bundler.sources", "bundler.web", "bundler.carrying",
}  # fmt: skip
BUNDLES = {"zstandard", "bundler.zstd", "concurrent.futures", "bundler.archive"}
WORK = PACKING | BUNDLES | {"bundler.report", "bundler.manifest", "bundler.receipt"}
RARELY = {"pickletools", "tomllib", "ctypes", "bundler.air_gap"}
"""For content that may be a pickle, request files, and programs that are cut off."""

COMMANDS: Mapping[str, Collection[str]] = {
    "--help": WORK | RARELY,
    "--version": WORK | RARELY,
    "pack --help": WORK | RARELY,
    "unpack --help": WORK | RARELY,
    "check --help": WORK | RARELY,
    "run --help": WORK | RARELY,
    "env": PACKING | BUNDLES | RARELY,
    "inspect b.tar.zst": PACKING | RARELY | {"bundler.place", "bundler.receipt"},
    "verify b.tar.zst": PACKING | RARELY | {"bundler.place", "bundler.report", "bundler.receipt"},
    "unpack b.tar.zst": PACKING | RARELY,
    "unpack b.tar.zst --dry-run": PACKING | RARELY,
    "unpack b.tar.zst --root installed": PACKING | RARELY,
    "installed --root installed": WORK - {"bundler.manifest", "bundler.receipt"} | RARELY
    | {"bundler.audit", "bundler.removal"},
    "verify --root installed": PACKING | RARELY | {"zstandard", "bundler.report"},
    "remove acme/tiny --root installed": PACKING | BUNDLES | RARELY | {"bundler.report"},
    "check acme/tiny --root installed": PACKING | BUNDLES | RARELY | {"bundler.place"},
    "check acme/tiny --root installed --json": PACKING | BUNDLES | RARELY | {"bundler.place"},
    "inventory --root installed": PACKING | RARELY | {"zstandard", "bundler.report"}
    | {"bundler.audit", "bundler.place"},
    "diff b.tar.zst b.tar.zst": PACKING | RARELY | {"bundler.place", "bundler.receipt"},
    "store": RARELY,
    "pack file:model": {"tomllib", "ctypes", "bundler.air_gap", "bundler.unpacking"}
    | {"bundler.carrying", "packaging"},
    "pack file:model --dry-run": {"tomllib", "ctypes", "bundler.air_gap", "bundler.unpacking"},
}  # fmt: skip
"""What each command is spared beside `SPARED`."""


def imported(arguments: list[str], home: Path, names: Collection[str], **env: str) -> list[str]:
    """Which of the modules `names` a command has imported that ended well."""
    program = (
        "import sys\n"
        "from bundler.cli import run\n"
        f"code = run({arguments!r})\n"
        f"loaded = [name for name in {sorted(names)!r} if name in sys.modules]\n"
        "print(*loaded, file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=home, env={**command_environment(home), **env},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    return done.stderr.split()


def test_the_contracts_of_pyproject_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_spared_what_others_need(tmp_path: Path, command: str) -> None:
    make_bundle(tmp_path / "b.tar.zst", {"acme/tiny": {"config.json": b"{}"}})
    installed = bundler.find_roots(root=tmp_path / "installed")
    bundler.unpack(tmp_path / "b.tar.zst", roots=installed, env=None)
    write_model(tmp_path / "model", {"config.json": b"{}", "model.safetensors": b"weights"})
    assert imported(command.split(), tmp_path, {*SPARED, *COMMANDS[command]}) == []


def test_a_local_model_asks_the_hub_for_what_it_needs(hub: LoopbackHub, tmp_path: Path) -> None:
    """What the table says of packing is no accident: the same folder, and a base elsewhere."""
    hub.add("acme/base", {"config.json": b"{}", "model.safetensors": b"weights"})
    adapter = b'{"base_model_name_or_path": "acme/base"}'
    files = {"adapter_config.json": adapter, "adapter_model.safetensors": b"weights"}
    write_model(tmp_path / "model", files)
    loaded = imported(["pack", "file:model"], tmp_path, NETWORK, HF_ENDPOINT=hub.url)
    assert {"huggingface_hub", "httpx2", "bundler.hub", "bundler.client"} <= {*loaded}
    packed = bundler.inspect(tmp_path / "bundle.tar.zst").manifest
    assert [snapshot.name for snapshot in packed.snapshots] == ["model", "acme/base"]


@pytest.mark.parametrize("name", sorted(set().union(SPARED, *COMMANDS.values())))
def test_what_is_forbidden_is_the_name_of_something(name: str) -> None:
    """A table of misspelt names forbids nothing."""
    top = name.partition(".")[0]
    if top not in sys.stdlib_module_names and top != "bundler" and find_spec(top) is None:
        pytest.skip(f"{top} is not installed")
    assert find_spec(name) is not None


def write_model(folder: Path, files: Mapping[str, bytes]) -> None:
    """Files of a model in a folder of its own."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
