"""What the command line says: lines for people, documents for programs, bars for those who wait."""

from __future__ import annotations

import json
import re
import sys
import threading
from typing import Any

from bundler.complaint import tell
from bundler.progress import Meter, Silent
from bundler.wording import printable

_DOUBTFUL = re.compile(r"[^ -~\n]")


def tell_leak(fault: str) -> None:
    """Say that the system cuts off no programs, and what that means."""
    tell(
        f"this system refuses a network namespace ({fault}): "
        "only Python programs are kept off the network"
    )


def print_json(document: dict[str, Any]) -> None:
    """Write the one document that `--json` promises."""
    print(harmless_json(json.dumps(document, ensure_ascii=False, indent=1)))


def harmless_json(text: str) -> str:
    """The same JSON, in which nothing stands for itself that a terminal would obey."""
    return _DOUBTFUL.sub(
        lambda found: found[0] if found[0].isprintable() else _escaped(found), text
    )


def _escaped(found: re.Match[str]) -> str:
    # Between texts JSON has nothing of the kind but white space, which may be any.
    return " " if found[0] in "\r\t" else json.dumps(found[0])[1:-1]


class Bars:
    """Progress as bars on stderr, if that is a terminal."""

    def start(self, what: str, total: int, done: int = 0) -> Meter:
        seen = total and sys.stderr.isatty()
        return _Bar(what, total, done) if seen else Silent().start(what, total)

    def say(self, text: str) -> None:
        if sys.stderr.isatty():
            from tqdm import tqdm

            tqdm.write(f"bundler: {printable(text)}", file=sys.stderr)
        else:
            tell(text)


class _Bar:
    def __init__(self, what: str, total: int, done: int) -> None:
        from tqdm import tqdm  # Which takes longer to import than many a command to run.

        self._bar = tqdm(
            desc=what,
            total=total,
            initial=done,
            unit="B",
            unit_scale=True,
            file=sys.stderr,
            leave=False,
        )
        self._lock = threading.Lock()

    def add(self, amount: int) -> None:
        with self._lock:
            self._bar.update(amount)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
