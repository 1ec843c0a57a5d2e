"""The content of a bundle, as it comes by -> blobs, each compared with header and digest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
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
        for is_large, here in groupby(self._members_before(stop), _is_large):
            compared = self._compared([*here], start, content)
            found.append([*compared] if is_large else compared)
        if stop > self._end:
            found.append(self._compared_end(start, stop, content))
        return chain.from_iterable(found)

    def _compared(
        self, members: Iterable[Member], start: int, content: bytes | DamagedError
    ) -> Iterator[Piece]:
        """What the content from byte `start` on has of members, unless they were found bad."""
        for member in members:
            key = member.start
            if key in self._bad:
                continue
            verifier = self._verifiers.pop(key, None)
            if verifier is None:
                verifier = Verifier(member.blob, member.what, member.git_sha1)
            try:
                if isinstance(content, DamagedError):
                    raise DamagedError(f"{member.what} cannot be read: {content}")
                data, is_last = _verified(member, start, content, verifier)
            except DamagedError as error:
                self._bad.add(key)
                self._receiver.refuse(member, error)
                continue
            if member.end > start + len(content):
                self._verifiers[key] = verifier
            if data or is_last:
                yield member, data, is_last

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
        size = 0
        for member, data, is_last in pieces:
            if member is not self._written:
                self._begin(member)
            if self._outlet is not None:
                self._outlet.write(data)
                if is_last:
                    outlet, self._outlet = self._outlet, None
                    outlet.close()
            size += len(data)
        count(size)

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


def _is_large(member: Member) -> bool:
    return member.blob.size >= LARGE


def _verified(
    member: Member, start: int, content: bytes, verifier: Verifier
) -> tuple[memoryview, bool]:
    """Of `content`, which begins at byte `start`, what is of a member, and whether it is the last.

    Raises DamagedError instead of giving the last of it if it is not right.
    """
    # Places in `content`, as far as they are in it.
    begin, end = member.start - start, member.end - start
    first, last = member.content_start - start, member.content_end - start
    if first > 0:
        header = member.header[max(0, -begin) : len(content) - begin]
        if content[max(0, begin) : first] != header:
            raise DamagedError(f"{member.what} cannot be read: something else stands there")
    if content[max(0, last) : end].strip(b"\0"):
        raise DamagedError(f"{member.what} cannot be read: something else stands after it")
    data = memoryview(content)[max(0, first) : max(0, last)]
    is_last = 0 < last <= len(content)
    verifier.update(data)
    if is_last:
        verifier.finish()
    return data, is_last
