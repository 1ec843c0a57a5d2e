"""What people install: the wheel has all it needs, and works by itself."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from command import command_environment

ROOT = Path(__file__).parent.parent


def test_the_wheel_is_whole_and_works(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir"]
    done = subprocess.run([*build, tmp_path, ROOT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "bundler").rglob("*.py")}
    assert modules | {"bundler/py.typed", "bundler/FORMAT.md"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "scripts", "bundles"))]

    program = f"import bundler; assert bundler.__file__.startswith({str(wheel)!r})"
    env = {**command_environment(tmp_path), "PYTHONPATH": str(wheel)}
    for command in (["-c", program], ["-m", "bundler", "pack", "--help"]):
        subprocess.run(
            [sys.executable, *command], env=env, cwd=tmp_path, check=True, capture_output=True
        )
