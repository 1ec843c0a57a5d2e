"""Runs of commands, measured from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

BLOCK = 4 << 20


@dataclass(frozen=True)
class Settings:
    """Where and how much is measured. Sizes in bytes; `folder` is empty and goes at the end."""

    folder: Path
    rounds: int
    size: int
    files: int
    large: int


@dataclass(frozen=True)
class Run:
    """One process with all that it started: wall seconds from start to end, seconds of all
    processors, and the most bytes of memory that any one process of it has had."""

    seconds: float
    processor: float
    peak: int


def environment(home: Path, variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a user at `home` who has set nothing up."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "RESTIC_PASSWORD": "bench",
        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        **(variables or {}),
    }


def program(module: str, *arguments: object) -> str:
    """Run a module of this package in a process of its own; what it prints."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    scripts = Path(__file__).parent.parent
    ran = subprocess.run(command, cwd=scripts, stdout=subprocess.PIPE, text=True, check=True)
    return ran.stdout.strip()


def shell(script: str, folder: Path, env: Mapping[str, str]) -> Run:
    """Run a shell command in `folder`. Exits with what it says if it fails."""
    with TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            end = said.read().decode(errors="replace")[-2000:]
            sys.exit(f"scripts/bench: `{script}` ended with {process.returncode}:\n{end}")
    # Linux tells the peak in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def told(run: Run) -> str:
    """One run for people."""
    return f"{run.seconds:.2f} s ({run.processor:.2f} s of processors, {run.peak / 1e6:.0f} MB)"


def note(line: str) -> None:
    """Show how far things are."""
    print(line, file=sys.stderr, flush=True)


def files_below(path: Path) -> Iterator[Path]:
    """`path` itself if it is a file, else all files below it.

    One at a time: what is started from here begins with the memory that is taken here, and its peak
    is never told as less.
    """
    if path.is_file():
        yield path
    for inner, _, names in os.walk(path):
        yield from (Path(inner, name) for name in names)


def size_of(path: Path) -> int:
    """Bytes of all files at `path`."""
    return sum(file.stat().st_size for file in files_below(path))


def read_all(path: Path) -> None:
    """Bring all that is at `path` into the page cache."""
    block = bytearray(BLOCK)
    for file in files_below(path):
        with open(file, "rb", buffering=0) as content:
            while content.readinto(block):
                pass
