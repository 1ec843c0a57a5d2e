"""What came out, beside what it should be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

TIMES = "×"  # noqa: RUF001, as it is read


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
    """One comparison. `result` is what the goal speaks of, in `measure`; None where something is
    not installed. A figure with a limit of its own is compared with nothing."""

    what: str
    bundler: float | None
    against: str
    other: float | None
    unit: str
    result: float | None
    measure: str
    goal: Goal | None

    @property
    def met(self) -> bool | None:
        """None if there is no goal, or nothing was measured."""
        return None if self.goal is None or self.result is None else self.goal.met(self.result)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        goal = None if self.goal is None else f"{self.goal} {self.measure}"
        return vars(self) | {"goal": goal, "met": self.met}

    def cells(self) -> Iterable[str]:
        """As the table shows it."""
        yield self.what
        yield _shown(self.bundler, self.unit)
        yield f"{self.against}: {_shown(self.other, self.unit)}" if self.against else ""
        yield _shown(self.result, self.measure) if self.against and self.result else ""
        yield "" if self.goal is None else f"{self.goal} {self.measure}"
        yield {True: "yes", False: "**no**", None: ""}[self.met]


def faster(
    what: str, seconds: float | None, against: str, other: float | None, at_least: float | None
) -> Row:
    """How many times as fast bundler is."""
    goal = None if at_least is None else Goal("≥", at_least)
    return Row(what, seconds, against, other, "s", _ratio(other, seconds), TIMES, goal)


def share(
    what: str,
    figure: float | None,
    against: str,
    other: float | None,
    unit: str,
    at_most: float | None,
) -> Row:
    """How many times as much bundler takes."""
    goal = None if at_most is None else Goal("≤", at_most)
    return Row(what, figure, against, other, unit, _ratio(figure, other), TIMES, goal)


def more(
    what: str, seconds: float | None, against: str, other: float | None, at_most: float
) -> Row:
    """How much longer bundler takes."""
    result = None if seconds is None or other is None else seconds - other
    return Row(what, seconds, against, other, "s", result, "s more", Goal("≤", at_most))


def limit(what: str, figure: float | None, unit: str, at_most: float) -> Row:
    """A figure that has a limit of its own."""
    return Row(what, figure, "", None, unit, figure, unit, Goal("≤", at_most))


def table(rows: Iterable[Row]) -> str:
    """In Markdown."""
    head = ("what", "bundler", "against", "result", "goal", "met")
    lines = [head, ["---"] * len(head), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ratio(over: float | None, under: float | None) -> float | None:
    return over / under if over is not None and under else None


def _shown(figure: float | None, unit: str) -> str:
    if figure is None:
        return "not installed"
    return f"{figure:,.0f} {unit}" if figure >= 100 else f"{figure:.3g} {unit}"
