"""The same work for many items, in threads that stop when they are told to."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import TypeVar

_AHEAD = 1
"""Results for each thread that may wait for the caller, who may wait for a disk."""

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")
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


def in_order(
    items: Iterable[T], work: Callable[[T], U], in_turn: Callable[[U], V], jobs: int | None
) -> Generator[V, None, None]:
    """What `in_turn` gives for what `work` gives for each item, in the order of the items.

    In `jobs` threads (None: `default_jobs`), each of which takes the next item, works on it beside
    the others, and waits for its turn. They run ahead of the caller, but not far. Raises what
    making the items, `work` and `in_turn` raise.
    """
    jobs = jobs or default_jobs()
    todo = enumerate(items)
    taking = threading.Lock()
    turns = _Turns()
    results: queue.Queue[tuple[V] | BaseException | None] = queue.Queue(_AHEAD * jobs)

    def do_next() -> None:
        with taking:
            turns.go_on()
            number, item = next(todo)
        result = work(item)
        del item  # It may be large, and the turn is long to come.
        with turns.take(number):
            results.put((in_turn(result),))

    def run() -> None:
        try:
            while True:
                do_next()
        except (StopIteration, Stopped):
            pass
        except BaseException as error:
            turns.stop()
            results.put(error)
        finally:
            results.put(None)

    threads: list[threading.Thread] = []
    running = 0
    try:
        for _ in range(jobs):
            thread = threading.Thread(target=run)
            thread.start()
            threads.append(thread)
            running += 1
        while running:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            if result is None:
                running -= 1
            else:
                yield result[0]
    finally:
        turns.stop()
        while running:  # Some wait until there is room for what they have.
            running -= results.get() is None
        for thread in threads:  # Not one whose start was interrupted: it stops by itself.
            thread.join()


class _Turns:
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
            self.go_on()
        yield
        with self._changed:
            self._next += 1
            self._changed.notify_all()

    def go_on(self) -> None:
        """Raise Stopped after `stop`."""
        if self._stopped:
            raise Stopped

    def stop(self) -> None:
        """No turn will come any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
