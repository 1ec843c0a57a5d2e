"""Questions to whoever sits at the terminal."""

from __future__ import annotations

import select
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from bundler.wording import printable

_AT_A_TIME = 0.2
"""Seconds between two looks whether the question is still of interest."""


def asker() -> Callable[[str], bool] | None:
    """What asks somebody at the terminal to do something and press Enter; None if there is none.

    To be called by the main thread; what it gives is for any.
    """
    # What is closed is None.
    if not all(stream and stream.isatty() for stream in (sys.stdin, sys.stderr)):
        return None
    interrupted = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> Any:
        # The exception is for the main thread, and would wait for the one that asks.
        interrupted.set()
        signal.default_int_handler(number, frame)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)

    def ask(what: str) -> bool:
        sys.stderr.write(f"bundler: {printable(what)}\n")
        sys.stderr.flush()
        while not select.select([sys.stdin], [], [], _AT_A_TIME)[0]:
            if interrupted.is_set():
                return False
        return sys.stdin.readline() != ""

    return ask
