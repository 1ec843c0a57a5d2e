"""JSON that others wrote, of which nothing is sure: not even that it is JSON."""

from __future__ import annotations

import json
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
