"""Runs of commands, measured from outside, in rounds that interleave whoever is compared."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

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


@dataclass(frozen=True)
class Contestant:
    """A way to do the work: shell commands by step, run one after the other in an empty folder.

    The commands find that folder in $HERE, an empty one for what they unpack in $HERE/out, and the
    data in $DATA. `before` is run first and not measured. `archive` is what the first step writes.
    """

    name: str
    tools: tuple[str, ...]
    steps: Mapping[str, str]
    archive: str = ""
    before: str = ""

    def missing(self) -> list[str]:
        """The tools that are not installed."""
        return [tool for tool in self.tools if shutil.which(tool) is None]


@dataclass
class Figures:
    """The runs of every contestant and step, and the size in bytes of what each has packed."""

    runs: dict[str, dict[str, list[Run]]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def seconds(self, name: str, step: str) -> float | None:
        """The median; None if it was not measured."""
        runs = self.runs.get(name, {}).get(step)
        return statistics.median(run.seconds for run in runs) if runs else None

    def pair(self, step: str, other: str) -> tuple[float | None, str, float | None]:
        """bundler's seconds for a step, the name of another, and its seconds."""
        return self.seconds("bundler", step), other, self.seconds(other, step)

    def peak(self, name: str, step: str) -> int | None:
        """The highest of all rounds, in bytes."""
        runs = self.runs.get(name, {}).get(step)
        return max(run.peak for run in runs) if runs else None

    def to_json(self) -> dict[str, Any]:
        """All figures as plain values."""
        return {
            "runs": {
                name: {step: [vars(run) for run in runs] for step, runs in steps.items()}
                for name, steps in self.runs.items()
            },
            "sizes": self.sizes,
        }


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


def rounds(
    contestants: Iterable[Contestant],
    data: Path,
    settings: Settings,
    variables: Mapping[str, str] | None = None,
    each_round: Callable[[], None] = lambda: None,
) -> Figures:
    """Let all contestants that are installed do their steps on `data`, in turn, in every round.

    Whatever is read is in the page cache before, and what others wrote is on the disk.
    `variables` are for the commands; `each_round` is called at the start of each.
    """
    figures = Figures()
    here = settings.folder / "here"
    env = environment(
        settings.folder / "home", {"DATA": str(data), "HERE": str(here), **(variables or {})}
    )
    read_all(data)
    for number in range(settings.rounds):
        each_round()
        for contestant in contestants:
            if contestant.missing():
                continue
            shutil.rmtree(here, ignore_errors=True)
            (here / "out").mkdir(parents=True)
            if contestant.before:
                shell(contestant.before, here, env)
            for step, script in contestant.steps.items():
                read_all(here / contestant.archive)
                os.sync()
                run = shell(script, here, env)
                runs = figures.runs.setdefault(contestant.name, {}).setdefault(step, [])
                runs.append(run)
                note(f"round {number + 1}: {contestant.name}, {step}: {told(run)}")
            if "unpack" in contestant.steps and size_of(here / "out") < size_of(data):
                sys.exit(f"scripts/bench: {contestant.name} has not unpacked everything")
            if contestant.archive:
                figures.sizes[contestant.name] = size_of(here / contestant.archive)
            shutil.rmtree(here)
    return figures


def told(run: Run) -> str:
    """One run for people."""
    return f"{run.seconds:.2f} s ({run.processor:.2f} s of processors, {run.peak / 1e6:.0f} MB)"


def note(line: str) -> None:
    """Show how far things are."""
    print(line, file=sys.stderr, flush=True)


def files_below(path: Path) -> list[Path]:
    """`path` itself if it is a file, else all files below it."""
    if path.is_file():
        return [path]
    return [Path(inner, name) for inner, _, names in os.walk(path) for name in names]


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
