"""What reads bytes of strangers keeps its promises, over all inputs that once broke one."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_seeds import SEEDS
from fuzz_targets import TARGETS

ROOT = Path(__file__).parent.parent
FOUND = Path(__file__).parent / "data" / "fuzz"
KEPT = sorted(FOUND.glob("*/*"))


def test_every_target_has_seeds_and_every_kept_input_a_target() -> None:
    assert SEEDS.keys() == TARGETS.keys() >= {path.parent.name for path in KEPT}


@pytest.mark.parametrize("target", TARGETS)
def test_a_good_input_breaks_no_promise(target: str) -> None:
    seeds = list(SEEDS[target]())
    assert seeds
    for seed in seeds:
        TARGETS[target](seed)


@pytest.mark.parametrize("path", [pytest.param(p, id=f"{p.parent.name}-{p.name}") for p in KEPT])
def test_what_broke_a_promise_once_breaks_none(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def searched(
    root: Path, folder: Path, *targets: str, seconds: int
) -> tuple[subprocess.CompletedProcess[str], list[Path]]:
    """What `scripts/fuzz` of the project at `root` says, and the inputs that it found."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed")
    options = ["--seconds", str(seconds), "--seed", "1"]
    options += ["--corpus", str(folder / "corpus"), "--found", str(folder / "found")]
    done = subprocess.run(
        [sys.executable, root / "scripts/fuzz.py", *targets, *options],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done, [path for path in (folder / "found").rglob("*") if path.is_file()]


def test_a_short_search_finds_nothing(tmp_path: Path) -> None:
    targets = ["manifest", "pickle", "tar", "zip"]
    done, found = searched(ROOT, tmp_path, *targets, seconds=1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("stat::number_of_executed_units") == len(targets)
    assert found == []


def test_a_search_finds_what_is_broken(tmp_path: Path) -> None:
    for name in ("bundler", "bundles", "scripts", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    module = tmp_path / "bundler/manifest.py"
    whole = module.read_text("utf-8")
    broken = whole.replace("except (ValueError, RecursionError)", "except RecursionError")
    assert broken != whole
    module.write_text(broken, "utf-8")
    done, found = searched(tmp_path, tmp_path, "manifest", seconds=30)
    assert done.returncode == 1
    assert done.stderr.endswith(f"found something in manifest: see {tmp_path}/found\n")
    assert [path.parent.name for path in found] == ["manifest"]
    with pytest.raises(ValueError, match=r"(column|codec)"):
        json.loads(found[0].read_bytes().decode())
