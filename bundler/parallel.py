"""The same work for many items, in threads that stop when they are told to.

Whoever waits for them may be interrupted anywhere, even while taking a lock by Python's own code,
and then it stays taken: `threading.Condition.__enter__`, and all that is made of it, such as
`queue.Queue`. So a caller waits for no such lock here. Those that only threads take are safe, and
so is `queue.SimpleQueue`, which is made to be interrupted.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable
from queue import SimpleQueue
from typing import TypeVar

_AHEAD = 2
"""Results for each thread that may wait for the caller, who may wait for a disk."""

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")
Count = Callable[[int], None]
"""Is told of bytes that are done."""


class Stopped(Exception):
    """Another thread has failed, or somebody has interrupted the work."""


class _Stop:
    """Whether all is to end."""

    def __init__(self) -> None:
        self.is_set = False

    def check(self) -> None:
        """Raise Stopped if it is."""
        if self.is_set:
            raise Stopped


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
    stop = _Stop()
    ends: SimpleQueue[BaseException | None] = SimpleQueue()

    def count_or_stop(amount: int) -> None:
        stop.check()
        count(amount)

    def work_on() -> None:
        while True:
            try:
                with taking:
                    stop.check()
                    item = next(todo)
            except StopIteration:
                return
            work(item, count_or_stop)

    def run() -> None:
        error = None
        try:
            work_on()
        except BaseException as fault:
            stop.is_set = True
            error = fault
        finally:
            ends.put(error)

    threads: list[threading.Thread] = []
    try:
        _start(threads, run, jobs)
        stopped = None
        for _ in range(jobs):
            error = ends.get()
            if isinstance(error, Stopped):
                stopped = error  # By what another one will tell.
            elif error is not None:
                raise error
        if stopped is not None:
            raise stopped
    finally:
        stop.is_set = True
        for thread in threads:
            thread.join()


def in_order(
    items: Iterable[T], work: Callable[[T], U], in_turn: Callable[[U], V], jobs: int | None
) -> Generator[V, None, None]:
    """What `in_turn` gives for what `work` gives for each item, in the order of the items.

    In `jobs` threads (None: `default_jobs`), each of which takes the next item, works on it beside
    the others, and waits for its turn. They run ahead of the caller, but not far. Raises what
    making the items, `work` and `in_turn` raise.
    """
    jobs = jobs or default_jobs()
    todo = iter(items)
    taking = threading.Lock()
    stop = _Stop()
    last_turn = threading.Lock()
    """Of the item that was taken last: free when the next one may have its own."""
    room: SimpleQueue[None] = SimpleQueue()
    """As much as there is room for results."""
    results: SimpleQueue[tuple[V] | BaseException | None] = SimpleQueue()
    for _ in range(_AHEAD * jobs):
        room.put(None)

    def do_next() -> None:
        nonlocal last_turn
        with taking:
            stop.check()
            item = next(todo)
            before, turn = last_turn, threading.Lock()
            turn.acquire()
            last_turn = turn
        try:
            result = work(item)
            del item  # It may be large, and the turn is long to come.
            with before:
                stop.check()
                room.get()
                results.put((in_turn(result),))
        except BaseException:
            stop.is_set = True  # Before the next one comes, too early.
            raise
        finally:
            turn.release()

    def run() -> None:
        try:
            while True:
                do_next()
        except (StopIteration, Stopped):
            pass
        except BaseException as error:
            stop.is_set = True
            results.put(error)
        finally:
            results.put(None)

    threads: list[threading.Thread] = []
    try:
        _start(threads, run, jobs)
        running = jobs
        while running:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            if result is None:
                running -= 1
            else:
                yield result[0]
                room.put(None)
    finally:
        stop.is_set = True
        for _ in range(jobs):  # Some wait until there is room for what they have.
            room.put(None)
        for thread in threads:
            thread.join()


def _start(threads: list[threading.Thread], run: Callable[[], None], jobs: int) -> None:
    """So many threads that `run`, added to `threads` one by one.

    One whose start is interrupted is not among them, and stops by itself.
    """
    for _ in range(jobs):
        thread = threading.Thread(target=run)
        thread.start()
        threads.append(thread)
