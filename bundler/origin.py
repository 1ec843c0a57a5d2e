"""Where the content of a file comes from: what each kind of source tells of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable

from bundler.digest import Stream

Key = Hashable
"""What tells one content from another in one run."""


class Origin(ABC):
    """One place, or several that have the same."""

    __slots__ = ()

    @property
    @abstractmethod
    def identity(self) -> str:
        """Names exactly this content, and stays the same from run to run.

        It is what an interrupted download is found by.
        """

    @property
    def key(self) -> Key:
        """Equal where `identity` is."""
        return self.identity

    @abstractmethod
    def open(self, start: int, /) -> Stream:
        """The content from byte `start` on; the caller closes it. Raises UnavailableError."""

    @property
    def part(self) -> Callable[[int, int], Stream] | None:
        """As `open`, up to before another byte, for several threads at once.

        It raises `web.NoPartsError` if the server gives no parts; None: not to be asked for.
        """
        return None

    @property
    def resumes(self) -> bool:
        """Whether what comes from an offset is sure to be of the same content as what came before.

        Otherwise `identity` tells no content of one time from that of another.
        """
        return True

    def elsewhere(self) -> None:
        """Called when a try went wrong: the next is to begin with another place, if there is."""
        return
