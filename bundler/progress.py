"""How the doers report progress; who shows it, and where, is the caller's business."""

from __future__ import annotations

from typing import Protocol


class Meter(Protocol):
    """One piece of work under way. `add` may be called from any thread."""

    def add(self, amount: int) -> None:
        """Count `amount` more bytes as done."""

    def __enter__(self) -> Meter: ...

    def __exit__(self, *_: object) -> None: ...


class Progress(Protocol):
    """Where pieces of work are announced."""

    def start(self, what: str, total: int, done: int = 0) -> Meter:
        """Announce work called `what`, of `total` bytes, of which `done` were done before."""

    def say(self, text: str) -> None:
        """Tell somebody who watches what is going on; from any thread."""


class _Silence:
    def add(self, amount: int) -> None:
        pass

    def __enter__(self) -> _Silence:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Silent:
    """Progress that nobody sees: the default of the Python API."""

    def start(self, what: str, total: int, done: int = 0) -> Meter:  # noqa: ARG002
        return _Silence()

    def say(self, text: str) -> None:
        """Nobody hears it."""
