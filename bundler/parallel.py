"""The same work for many items, in threads that stop when they are told to."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

T = TypeVar("T")
Count = Callable[[int], None]
"""Is told of bytes that are done."""


class Stopped(Exception):
    """Another thread has failed, or somebody has interrupted the work."""


def default_jobs() -> int:
    """Threads where the user names no number of them."""
    return min(os.cpu_count() or 1, 8)


def each_in_threads(
    items: Iterable[T],
    work: Callable[[T, Count], None],
    jobs: int | None,
    count: Count,
) -> None:
    """Call `work` for each item in one of `jobs` threads; raises what it raises.

    `work` tells the `count` that it gets how many bytes it has done, from time to time: that raises
    `Stopped` when all is to end. Without `jobs`: `default_jobs`.
    """
    jobs = jobs or default_jobs()
    todo = iter(items)
    taking = threading.Lock()
    stopped = threading.Event()

    def count_or_stop(amount: int) -> None:
        if stopped.is_set():
            raise Stopped
        count(amount)

    def work_on() -> None:
        while not stopped.is_set():
            try:
                with taking:
                    item = next(todo)
            except StopIteration:
                return
            work(item, count_or_stop)

    with ThreadPoolExecutor(jobs) as threads:
        try:
            for done in as_completed([threads.submit(work_on) for _ in range(jobs)]):
                done.result()
        finally:
            stopped.set()
