"""Work in threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_an_interruption_at_any_step_of_whoever_waits_ends_all_threads() -> None:
    """Even where it leaves a lock taken that Python's own code was about to give back."""
    program = Path(__file__).parent / "interrupted_anywhere.py"
    ran = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=100, check=False
    )
    assert ran.returncode == 0, ran.stderr
    steps = {name: int(count) for name, count in map(str.split, ran.stdout.splitlines())}
    assert steps.keys() == {"in_their_order", "each"}
    assert min(steps.values()) > 10
