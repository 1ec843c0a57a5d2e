"""The demo does what it shows, and leaves nothing behind but its bundle."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
BUNDLE = Path("bundles/demo.tar.zst")


@dataclass(frozen=True)
class Place:
    """A copy of the repository, with a home and a folder for temporary files."""

    repository: Path
    home: Path
    temporary: Path

    def demo(self, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run scripts/demo as a user would."""
        return subprocess.run(
            [self.repository / "scripts" / "demo"],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "TMPDIR": str(self.temporary),
                "PYTHONDONTWRITEBYTECODE": "1",
                **env,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def contents(self) -> set[Path]:
        """Everything in the copy, the home and the temporary folder."""
        return {path for folder in vars(self).values() for path in folder.rglob("*")}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """What the demo needs of the repository, without what other tests and tools keep there."""
    place = Place(*(tmp_path / name for name in ("repository", "home", "temporary")))
    for folder in vars(place).values():
        folder.mkdir()
    for name in ("bundler", "scripts", "tests"):
        rubbish = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, place.repository / name, ignore=rubbish)
    for name in ("pyproject.toml", "README.md", ".gitignore"):
        shutil.copy(REPOSITORY / name, place.repository)
    (place.repository / "bundles").mkdir()
    return place


def test_the_demo_ends_with_the_same_weights_and_leaves_only_its_bundle(place: Place) -> None:
    """Every command is shown; caches, token and temporary files of the user are not touched."""
    for library in ("torch", "transformers"):
        pytest.importorskip(library)
    before = place.contents()
    ran = place.demo({"BUNDLER_DEMO_PYTHON": sys.executable})
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    assert ran.stdout.splitlines()[-3:] == [
        "the same tokens: yes",
        "the same answer of a pipeline: yes",
        "the same weights: yes",
    ]
    shown = re.findall(r"^  \$ .*?\bbundler (\w+) ", ran.stdout, re.MULTILINE)
    assert shown == ["pack", "inspect", "verify", "unpack"]
    assert place.contents() - before == {place.repository / BUNDLE}


def test_a_demo_that_fails_says_so_in_one_line_and_leaves_nothing(place: Place) -> None:
    """Here the bundle cannot be written, since its folder is missing."""
    pytest.importorskip("transformers")
    (place.repository / "bundles").rmdir()
    before = place.contents()
    ran = place.demo({"BUNDLER_DEMO_PYTHON": sys.executable})
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].startswith("demo: `HF_ENDPOINT=")
    assert "the same weights" not in ran.stdout
    assert place.contents() == before


def test_a_machine_without_python_is_told_what_to_install(place: Place) -> None:
    """One line, and no half-made .venv."""
    tools = place.home / "tools"
    tools.mkdir()
    for tool in ("bash", "env", "dirname"):
        found = shutil.which(tool)
        assert found is not None
        (tools / tool).symlink_to(found)
    before = place.contents()
    ran = place.demo({"PATH": str(tools)})
    assert ran.returncode == 1
    assert ran.stderr == "demo: needs Python 3.10 or newer: install it first\n"
    assert place.contents() == before


def test_git_ignores_the_bundle_of_the_demo(place: Place) -> None:
    """So it is never committed by mistake."""
    if shutil.which("git") is None:
        pytest.skip("git is not there")
    for command in (["init", "-q"], ["check-ignore", "-q", str(BUNDLE)]):
        ran = subprocess.run(["git", *command], cwd=place.repository, check=False)
        assert ran.returncode == 0
