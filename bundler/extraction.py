"""The content of a bundle, as it comes by -> blobs, each compared with header and digest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Protocol

from bundler.digest import Verifier
from bundler.errors import DamagedError
from bundler.members import END, LARGE, Member
from bundler.parallel import Count


class Outlet(Protocol):
    """Where the content of one blob goes."""

    def write(self, data: memoryview) -> None:
        """Take the next bytes."""

    def close(self) -> None:
        """All is here, and is what the manifest says."""

    def abandon(self) -> None:
        """No more will come; in place of `close`."""


class Receiver(Protocol):
    """What is to become of blobs."""

    def open(self, member: Member) -> Outlet | None:
        """Where its content is to go, if anywhere."""

    def refuse(self, member: Member, error: DamagedError) -> None:
        """It is not what the manifest says: go on with the others, or raise. In any thread."""


Piece = tuple[Member, memoryview, bool]
"""The next content of a blob, and whether it is the last."""


class Extraction:
    """Compares content that comes in its order, gaps allowed, and gives it to `receiver`.

    A member has exactly one right header, so links, devices, sparse files, pax records and every
    other thing that a tar can say need no rules of their own. `end`: where the last member ends. A
    context manager: on leaving it what is not whole is abandoned.
    """

    def __init__(self, members: Sequence[Member], end: int, receiver: Receiver) -> None:
        self._members = members
        self._end = end
        self._receiver = receiver
        self._number = 0
        """Of the member that `take` is at."""
        self._verifiers: dict[int, Verifier] = {}
        """Of members that have begun to come, by where they start."""
        self._bad: set[int] = set()
        self._written: Member | None = None
        """What `write` is at."""
        self._outlet: Outlet | None = None

    def __enter__(self) -> Extraction:
        return self

    def __exit__(self, *_: object) -> None:
        self._begin(None)

    def take(self, start: int, stop: int, content: bytes | DamagedError) -> Iterator[Piece]:
        """What is to be written of the content between two bytes, or what is wrong with it.

        Large members are compared at once, small ones when they are asked for, by the thread that
        writes them: threads with short pieces of work only wait for each other. Raises
        DamagedError, also later, if there is something wrong with the end of the bundle.
        """
        found: list[Iterable[Piece]] = []
        for member in self._members_before(stop):
            compared = self._compared(member, start, content)
            found.append(compared if member.blob.size < LARGE else [*compared])
        if stop > self._end:
            found.append(self._compared_end(start, stop, content))
        return chain.from_iterable(found)

    def _compared(
        self, member: Member, start: int, content: bytes | DamagedError
    ) -> Iterator[Piece]:
        """What the content from byte `start` on has of a member, unless that was found bad."""
        key = member.start
        if key in self._bad:
            return
        if key not in self._verifiers:
            self._verifiers[key] = Verifier(member.blob, member.what, member.git_sha1)
        try:
            if isinstance(content, DamagedError):
                raise DamagedError(f"{member.what} cannot be read: {content}")
            yield from _verified(member, start, memoryview(content), self._verifiers[key])
        except DamagedError as error:
            self._bad.add(key)
            self._receiver.refuse(member, error)
        if isinstance(content, DamagedError) or member.end <= start + len(content):
            del self._verifiers[key]

    def _compared_end(
        self, start: int, stop: int, content: bytes | DamagedError
    ) -> Iterator[Piece]:
        if isinstance(content, DamagedError):
            raise content
        begin = max(start, self._end)
        if content[begin - start :] != END[begin - self._end : stop - self._end]:
            raise DamagedError("the bundle holds something else where its end is")
        yield from ()

    def write(self, pieces: Iterable[Piece], count: Count) -> None:
        """Write what `take` gave, in the same order; by another thread, if need be."""
        for member, data, is_last in pieces:
            if member is not self._written:
                self._begin(member)
            if self._outlet is not None:
                self._outlet.write(data)
                if is_last:
                    outlet, self._outlet = self._outlet, None
                    outlet.close()
            count(len(data))

    def _begin(self, member: Member | None) -> None:
        """Abandon what was not finished, and go on with another member."""
        if self._outlet is not None:
            self._outlet.abandon()
        self._written = member
        self._outlet = None if member is None else self._receiver.open(member)

    def _members_before(self, stop: int) -> Iterator[Member]:
        """The members of which there is something before byte `stop`, from where it was left."""
        while self._number < len(self._members):
            member = self._members[self._number]
            if member.start >= stop:
                break
            yield member
            if member.end > stop:
                break
            self._number += 1


def _verified(member: Member, start: int, view: memoryview, verifier: Verifier) -> Iterator[Piece]:
    """Of what stands in `view`, from byte `start` of the content on, that of a member.

    Raises DamagedError instead of giving the last of it if it is not right.
    """
    stop = start + len(view)
    first, last = member.content_start, member.content_end

    def part(begin: int, end: int) -> memoryview:
        """What is here of the content between two bytes."""
        return view[max(begin, start) - start : max(0, min(end, stop) - start)]

    if start < first:
        header = member.header[max(0, start - member.start) : stop - member.start]
        if part(member.start, first) != header:
            raise DamagedError(f"{member.what} cannot be read: something else stands there")
    if any(part(last, member.end)):
        raise DamagedError(f"{member.what} cannot be read: something else stands after it")
    data = part(first, last)
    if data or (first == last <= stop):
        verifier.update(data)
        if last <= stop:
            verifier.finish()
        yield member, data, last <= stop
