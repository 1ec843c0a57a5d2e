"""Facts about model libraries, read out of them by `scripts/refresh_catalogues.py`.

So that packing needs none of those libraries. Each catalogue says under `made_with` which versions
it was made with.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from pkgutil import get_data
from typing import Any


@cache
def catalogue(name: str) -> dict[str, Any]:
    """The catalogue `name`: timm, torchvision, torchhub or weights_only."""
    content = get_data(__name__, f"{name}.json")  # Which may be in unpack.pyz.
    document: dict[str, Any] = json.loads(content or b"")
    return document


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence that refuses `name`: the names most like it, or where to look."""
    by_letters = {other.lower(): other for other in known}
    same = by_letters.get(name.lower())
    if same is not None:
        return f"did you mean {same}?"
    close = [by_letters[c] for c in get_close_matches(name.lower(), by_letters, n=3, cutoff=0.5)]
    return f"did you mean {' or '.join(close)}?" if close else "check the spelling"
