"""The content of a bundle, as it comes by -> blobs, each compared with header and digest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from bundler.digest import Verifier
from bundler.errors import DamagedError
from bundler.members import END, Member
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
        self._verifier: Verifier | None = None
        """Of the same, unless nothing of it has come, or it was found bad."""
        self._is_bad = False
        self._written: Member | None = None
        """What `write` is at."""
        self._outlet: Outlet | None = None

    def __enter__(self) -> Extraction:
        return self

    def __exit__(self, *_: object) -> None:
        self._begin(None)

    def take(self, start: int, stop: int, content: bytes | DamagedError) -> list[Piece]:
        """What is to be written of the content between two bytes, or what is wrong with it.

        Raises DamagedError if there is something wrong with the end of the bundle.
        """
        pieces: list[Piece] = []
        for member in self._members_before(stop):
            try:
                if isinstance(content, DamagedError):
                    raise DamagedError(f"{member.what} cannot be read: {content}")
                if self._verifier is None:
                    self._verifier = Verifier(member.blob, member.what, member.git_sha1)
                pieces += _compared(member, start, memoryview(content), self._verifier)
            except DamagedError as error:
                self._is_bad = True
                self._receiver.refuse(member, error)
        if stop > self._end:
            if isinstance(content, DamagedError):
                raise content
            begin = max(start, self._end)
            if content[begin - start :] != END[begin - self._end : stop - self._end]:
                raise DamagedError("the bundle holds something else where its end is")
        return pieces

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
        """The members of which there is something before byte `stop`, from where it was left.

        Not the one that was found bad.
        """
        while self._number < len(self._members):
            member = self._members[self._number]
            if member.start >= stop:
                break
            if not self._is_bad:
                yield member
            if member.end > stop:
                break
            self._number += 1
            self._verifier, self._is_bad = None, False


def _compared(member: Member, start: int, view: memoryview, verifier: Verifier) -> Iterator[Piece]:
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
