"""Interrupts what waits for threads at each of its steps, once, and sees that all comes to an end.

A step is a call or its end: between those Python looks for signals. A program of its own, since
whoever starts it can tell when it hangs.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from types import FrameType
from typing import Any

from bundler.parallel import each_in_threads, in_order

JOBS = 2
ITEMS = range(6)


def in_their_order() -> None:
    """Take all results."""
    with closing(in_order(ITEMS, lambda number: number, lambda number: -number, JOBS)) as results:
        assert [*results] == [-number for number in ITEMS]


def each() -> None:
    """Have all done."""
    done: list[int] = []
    each_in_threads(ITEMS, lambda number, count: count(number), JOBS, done.append)
    assert sorted(done) == [*ITEMS]


def starts_thread(frame: FrameType | None) -> bool:
    """Whether somebody above `frame` starts a thread: one not wholly started is not waited for."""
    while frame is not None and frame.f_code is not threading.Thread.start.__code__:
        frame = frame.f_back
    return frame is not None


def interrupted(work: Callable[[], None], number: int) -> bool:
    """Whether `work` was interrupted, at the step of that number."""
    left = number

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left
        # Raised where a generator yields, it would not end it, as a signal does.
        if event in ("call", "return") and not frame.f_code.co_flags & inspect.CO_GENERATOR:
            left -= not starts_thread(frame)
            if left == 0:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
        others = [t for t in threading.enumerate() if t is not threading.main_thread()]
        for thread in others:
            thread.join(10)
            assert not thread.is_alive(), (work.__name__, number)
    return False


if __name__ == "__main__":
    for work in (in_their_order, each):
        number = 1
        while interrupted(work, number):
            number += 1
        print(work.__name__, number)
