"""The same work for many items, in threads that stop when they are told to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Stopped(Exception):
    """Another thread has failed, or somebody has interrupted the work."""


def each_in_threads(
    items: Iterable[T], work: Callable[[T, Callable[[], None]], None], jobs: int
) -> None:
    """Call `work` for each item in one of `jobs` threads; raises what it raises.

    `work` gets a function to call from time to time: it raises `Stopped` when all is to end.
    """
    todo = iter(items)
    taking = threading.Lock()
    stopped = threading.Event()

    def go_on() -> None:
        if stopped.is_set():
            raise Stopped

    def work_on() -> None:
        while not stopped.is_set():
            try:
                with taking:
                    item = next(todo)
            except StopIteration:
                return
            work(item, go_on)

    with ThreadPoolExecutor(jobs) as threads:
        try:
            for done in [threads.submit(work_on) for _ in range(jobs)]:
                done.result()
        finally:
            stopped.set()
