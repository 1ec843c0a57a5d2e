"""JSON that others wrote, of which nothing is sure: not even that it is JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bundler.disk import start_of

MALFORMED = (
    ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError
)  # fmt: skip
"""What it raises to take values out of a document in which there are other ones, or none."""


def json_in(content: bytes | str) -> Any:
    """What a text of JSON says; None if it is none, or too deep to be read."""
    try:
        return json.loads(content)
    except MALFORMED:
        return None


def json_at(path: Path, size: int) -> Any:
    """What a file says, of which `size` bytes are read; None, too, if it cannot be read."""
    try:
        return json_in(start_of(path, size))
    except OSError:
        return None


def strict_json(text: str, made: Callable[[dict[str, Any]], object] = lambda record: record) -> Any:
    """What a text of JSON says, in which nothing can be read in two ways.

    `made` gives what is to be in place of each object, the innermost first. Raises ValueError if
    it is none, or has a key twice in one object, and RecursionError if it is too deep.
    """

    def made_without_duplicates(pairs: list[tuple[str, Any]]) -> object:
        record = dict(pairs)
        if len(record) != len(pairs):
            raise ValueError("the same key twice in one object")
        return made(record)

    return json.loads(
        text, object_pairs_hook=made_without_duplicates, parse_constant=_refuse_constant
    )


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")
