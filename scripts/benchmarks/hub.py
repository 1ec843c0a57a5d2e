"""A hub on the loopback address, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).parent.parent.parent / "tests"


@contextmanager
def loopback_hub(folder: Path) -> Iterator[str]:
    """The address of a hub that serves the models below `folder`, each as ORG/NAME/…"""
    command = [sys.executable, str(TESTS / "loopback_hub.py"), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hub:
        assert hub.stdout is not None
        assert hub.stdin is not None
        yield hub.stdout.readline().strip()
        hub.stdin.close()
