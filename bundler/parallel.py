"""The same work for many items, in threads that stop when they are told to."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
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

    Items are taken in their order, one at a time. `work` tells the `count` that it gets how many
    bytes it has done, from time to time: that raises `Stopped` when all is to end. Without `jobs`:
    `default_jobs`.
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
            ended = None
            for done in as_completed([threads.submit(work_on) for _ in range(jobs)]):
                try:
                    done.result()
                except Stopped as error:
                    ended = error  # By what another one will tell.
            if ended is not None:
                raise ended
        finally:
            stopped.set()


class Turns:
    """What threads do one after another, in the order of their numbers: 0, 1, 2, …"""

    def __init__(self) -> None:
        self._next = 0
        self._stopped = False
        self._changed = threading.Condition()

    @contextmanager
    def take(self, number: int) -> Iterator[None]:
        """Wait for the turn of `number`, and have it. Raises Stopped if it will never come."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._next == number)
            if self._stopped:
                raise Stopped
        yield
        with self._changed:
            self._next += 1
            self._changed.notify_all()

    @contextmanager
    def ended_by_errors(self) -> Iterator[None]:
        """No turn will come any more if this block ends with an error."""
        try:
            yield
        except BaseException:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()
            raise
