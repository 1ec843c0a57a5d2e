"""What came out, beside what it should be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Goal:
    """At least, or at most, so much."""

    sign: str
    value: float

    def met(self, figure: float) -> bool:
        """Whether `figure` is on the right side."""
        return figure >= self.value if self.sign == "≥" else figure <= self.value

    def __str__(self) -> str:
        return f"{self.sign} {self.value:g}"


@dataclass(frozen=True)
class Row:
    """One comparison. `ratio` is what the goal speaks of; None where something is not installed."""

    what: str
    bundler: float | None
    against: str
    other: float | None
    unit: str
    ratio: float | None
    goal: Goal | None

    @property
    def met(self) -> bool | None:
        """None if there is no goal, or nothing was measured."""
        return None if self.goal is None or self.ratio is None else self.goal.met(self.ratio)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        goal = None if self.goal is None else str(self.goal)
        return vars(self) | {"goal": goal, "met": self.met}

    def cells(self) -> Iterable[str]:
        """As the table shows it."""
        yield self.what
        yield _shown(self.bundler, self.unit)
        yield f"{self.against}: {_shown(self.other, self.unit)}" if self.against else ""
        yield "" if self.ratio is None else f"{self.ratio:.3g}"
        yield "" if self.goal is None else str(self.goal)
        yield {True: "yes", False: "**no**", None: ""}[self.met]


def faster(
    what: str, seconds: float | None, against: str, other: float | None, at_least: float | None
) -> Row:
    """How many times as fast bundler is."""
    goal = None if at_least is None else Goal("≥", at_least)
    return Row(what, seconds, against, other, "s", _ratio(other, seconds), goal)


def share(
    what: str,
    figure: float | None,
    against: str,
    other: float | None,
    unit: str,
    at_most: float | None,
) -> Row:
    """How much bundler takes for each part that the other takes."""
    goal = None if at_most is None else Goal("≤", at_most)
    return Row(what, figure, against, other, unit, _ratio(figure, other), goal)


def limit(what: str, figure: float | None, unit: str, at_most: float) -> Row:
    """A figure that has a limit of its own."""
    return Row(what, figure, "", None, unit, figure, Goal("≤", at_most))


def table(rows: Iterable[Row]) -> str:
    """In Markdown."""
    head = ("what", "bundler", "against", "ratio", "goal", "met")
    lines = [head, ["---"] * len(head), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ratio(over: float | None, under: float | None) -> float | None:
    return over / under if over is not None and under else None


def _shown(figure: float | None, unit: str) -> str:
    if figure is None:
        return "not installed"
    return f"{figure:,.0f} {unit}" if figure >= 100 else f"{figure:.3g} {unit}"
