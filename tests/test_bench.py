"""The benchmark runs with next to nothing to do, says what it found, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "bench.py"
TINY = ("--rounds", "1", "--size", "3", "--files", "8", "--large", "0.02")


def bench(
    *arguments: object, temporary: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run scripts/bench.py, with a folder of its own for temporary files."""
    temporary.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        env={**os.environ, "TMPDIR": str(temporary), **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(autouse=True)
def _numpy() -> None:
    pytest.importorskip("numpy")


def test_it_tells_each_figure_and_each_goal(tmp_path: Path) -> None:
    """As a table, and as JSON."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not there")
    ran = bench("weights", "reads", *TINY, "--json", tmp_path / "x", temporary=tmp_path / "tmp")
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads((tmp_path / "x").read_text())
    assert found.keys() == {"machine", "rounds", "weights", "figures", "ceiling", "goals"}
    assert found["machine"].keys() >= {"processors", "SHA extensions", "file system", "restic"}
    assert found["figures"].keys() == {"weights", "reads"}
    steps = found["figures"]["weights"]["runs"]
    assert steps["bundler"].keys() >= {"pack", "pack again", "unpack", "unpack again", "verify"}
    for runs in (runs for each in steps.values() for runs in each.values()):
        (run,) = runs
        assert 0 < run["seconds"] < 60
        assert run["peak"] > 1 << 20
    assert found["ceiling"].keys() == {
        *("level", "hash", "compress", "decompress", "shrunk", "writing")
    }
    assert 0.5 < found["ceiling"]["shrunk"] < 1
    for goal in found["goals"]:
        assert goal.keys() == {
            *("what", "bundler", "against", "other", "unit", "result", "measure", "goal", "met")
        }
    rows = [line for line in ran.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + len(found["goals"])
    reads = found["figures"]["reads"]
    assert reads["bundle"] == pytest.approx(25, rel=0.01)
    assert 0 < reads["inspect"] < 1
    assert 5 < reads["unpack --only"] < 6
    assert list((tmp_path / "tmp").iterdir()) == []


def test_what_is_not_installed_is_told(tmp_path: Path) -> None:
    """And everything else is measured."""
    tools = tmp_path / "bin"
    tools.mkdir()
    bash = shutil.which("bash")
    assert bash is not None
    for tool in ("rm", "bash"):
        (tools / tool).symlink_to(Path(bash).with_name(tool))
    ran = bench("others", *TINY, temporary=tmp_path / "tmp", env={"PATH": str(tools)})
    assert ran.returncode == 0, ran.stderr
    packed = [line.split(" | ") for line in ran.stdout.splitlines() if "| pack" in line]
    assert [cells[2:] for cells in packed] == [
        [f"{other}: not installed", "", "≥ 3.3 ×", " |"]  # noqa: RUF001
        for other in ("restic", "borg, zstd,3", "casync")
    ]
    assert all(re.fullmatch(r"[\d.]+ s", cells[1]) for cells in packed)


def test_a_command_that_fails_ends_it(tmp_path: Path) -> None:
    """With what the command said."""
    broken = tmp_path / "bin"
    broken.mkdir()
    (broken / "strace").write_text("#!/bin/sh\necho not permitted >&2\nexit 3\n")
    (broken / "strace").chmod(0o755)
    path = f"{broken}{os.pathsep}{os.environ['PATH']}"
    ran = bench("reads", *TINY, temporary=tmp_path / "tmp", env={"PATH": path})
    assert ran.returncode == 1
    assert "ended with 3:\nnot permitted" in ran.stderr
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_section_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Before anything is measured."""
    ran = bench("heavy", temporary=tmp_path)
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[-1].endswith(
        "there is no section heavy: weights, others, small, memory, reads, start, download"
    )
