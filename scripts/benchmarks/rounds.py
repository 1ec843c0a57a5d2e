"""Rounds that interleave whoever is compared."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.runs import Run, Settings, environment, note, read_all, shell, size_of, told


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
