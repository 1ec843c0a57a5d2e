"""What may import what: the floors, and what a target is spared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from command import command_environment
from memory_source import make_bundle

ROOT = Path(__file__).parent.parent
FORBIDDEN = ("huggingface_hub", "torch", "httpx2", "httpx", "requests", "urllib.request")


def test_the_contracts_of_pyproject_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["unpack", "--help"], ["pack", "--help"],
                                       ["run", "--help"], ["unpack", "b.tar.zst"],
                                       ["inspect", "b.tar.zst"],
                                       ["verify", "b.tar.zst"], ["env"]])  # fmt: skip
def test_the_target_is_spared_every_network_library(tmp_path: Path, arguments: list[str]) -> None:
    make_bundle(tmp_path / "b.tar.zst", {"acme/tiny": {"config.json": b"{}"}})
    program = (
        "import sys\n"
        "from bundler.cli import run\n"
        f"code = run({arguments!r})\n"
        f"loaded = [name for name in {FORBIDDEN!r} if name in sys.modules]\n"
        "print('loaded', loaded, file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env=command_environment(tmp_path),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "loaded []\n")
