"""The content of a bundle, as it comes by -> blobs, each compared with header and digest."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Protocol

from bundler.digest import Verifier
from bundler.errors import DamagedError
from bundler.members import END, Member
from bundler.parallel import Count


class Outlet(Protocol):
    """Where the content of one blob goes."""

    def write(self, offset: int, data: memoryview) -> None:
        """Take the bytes from `offset` on; in no order, by several threads at once."""

    def close(self) -> None:
        """All is here, and is what the manifest says."""

    def abandon(self) -> None:
        """No more will come; in place of `close`."""


class Receiver(Protocol):
    """What is to become of blobs."""

    def open(self, member: Member) -> Outlet | None:
        """Where its content is to go, if anywhere. Called once, in any thread."""

    def refuse(self, member: Member, error: DamagedError) -> None:
        """It is not what the manifest says: go on with the others, or raise."""


class _Arriving:
    """A blob of which some bytes have come by."""

    __slots__ = (
        "_is_open", "_lock", "_outlet", "_receiver", "_unwritten", "is_bad", "member", "verifier",
    )  # fmt: skip

    def __init__(self, member: Member, receiver: Receiver) -> None:
        self.member = member
        self.verifier = Verifier(member.blob, member.what, member.git_sha1)
        self.is_bad = False
        self._receiver = receiver
        self._lock = threading.Lock()
        self._is_open = False
        self._outlet: Outlet | None = None
        self._unwritten = member.blob.size

    def write(self, offset: int, data: memoryview) -> bool:
        """Take verified bytes; whether they were the last that were not written yet."""
        with self._lock:
            if not self._is_open:
                self._outlet = self._receiver.open(self.member)
                self._is_open = True
        if self._outlet is not None:
            self._outlet.write(offset, data)
        with self._lock:
            self._unwritten -= len(data)
            is_done = not self._unwritten
        if is_done and self._outlet is not None:
            outlet, self._outlet = self._outlet, None
            outlet.close()
        return is_done

    def abandon(self) -> None:
        if self._outlet is not None:
            self._outlet.abandon()


Piece = tuple[_Arriving, int, memoryview]
"""Some content of a blob, and where in it that belongs."""


class Extraction:
    """Compares content that comes in its order, gaps allowed, and gives it to `receiver`.

    A member has exactly one right header, so links, devices, sparse files, pax records and every
    other thing that a tar can say need no rules of their own. `end`: where the last member ends. A
    context manager: on leaving it no thread may be at work any more.
    """

    def __init__(self, members: Sequence[Member], end: int, receiver: Receiver) -> None:
        self._members = members
        self._end = end
        self._receiver = receiver
        self._number = 0
        self._arriving: _Arriving | None = None
        self._unfinished: set[_Arriving] = set()

    def __enter__(self) -> Extraction:
        return self

    def __exit__(self, *_: object) -> None:
        for arriving in self._unfinished:
            arriving.abandon()

    def take(self, start: int, stop: int, content: bytes | DamagedError) -> list[Piece]:
        """What is to be written of the content between two bytes, or what is wrong with it.

        Raises DamagedError if there is something wrong with the end of the bundle.
        """
        pieces: list[Piece] = []
        for member in self._members_before(stop):
            if self._arriving is None:
                self._arriving = _Arriving(member, self._receiver)
            if not self._arriving.is_bad:
                try:
                    if isinstance(content, DamagedError):
                        raise DamagedError(f"{member.what} cannot be read: {content}")
                    _compare(self._arriving, start, memoryview(content), pieces)
                except DamagedError as error:
                    self._arriving.is_bad = True
                    self._receiver.refuse(member, error)
        if stop > self._end:
            if isinstance(content, DamagedError):
                raise content
            begin = max(start, self._end)
            if content[begin - start :] != END[begin - self._end : stop - self._end]:
                raise DamagedError("the bundle holds something else where its end is")
        return pieces

    def write(self, pieces: list[Piece], count: Count) -> None:
        """Write what `take` gave; in any thread, and several at once."""
        for arriving, offset, data in pieces:
            self._unfinished.add(arriving)
            if arriving.write(offset, data):
                self._unfinished.discard(arriving)
            count(len(data))

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
            self._arriving = None


def _compare(arriving: _Arriving, start: int, view: memoryview, pieces: list[Piece]) -> None:
    """Compare what `view`, from byte `start` of the content on, has of a member.

    Its content is appended to `pieces` as far as it is right. Raises DamagedError.
    """
    member, stop = arriving.member, start + len(view)
    first, last = member.content_start, member.content_end

    def part(begin: int, end: int) -> memoryview:
        """What is here of the content between two bytes."""
        return view[max(begin, start) - start : max(0, min(end, stop) - start)]

    if start < first:
        header = member.header[max(0, start - member.start) : stop - member.start]
        if part(member.start, first) != header:
            raise DamagedError(f"{member.what} cannot be read: something else stands there")
    data = part(first, last)
    if data or (first == last <= stop):
        arriving.verifier.update(data)
        if last <= stop:
            arriving.verifier.finish()
        pieces.append((arriving, max(start, first) - first, data))
    if any(part(last, member.end)):
        raise DamagedError(f"{member.what} cannot be read: something else stands after it")
