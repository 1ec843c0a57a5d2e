"""Lines for people: what may stand in them, and how numbers and rows are put."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_WIDEST = 40
"""Characters of a cell in a table, but for those of the last column."""


def printable(text: str) -> str:
    """`text` without anything that a terminal would obey; lines are kept."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def counted(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def table(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Rows of cells as lines, in columns."""
    rows = [[*(cell[:_WIDEST] for cell in row[:-1]), row[-1]] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
