"""What must stand where below a root: the words in which layouts speak to the writer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bundler.digest import Blob
from bundler.relative import RelativePath

Exists = Callable[[RelativePath], bool]
"""Whether a path below the root exists."""


@dataclass(frozen=True, slots=True)
class File:
    """The content of a blob.

    `by_content`: the path says what the content is, so anything else that stands there is a damaged
    copy, and is replaced. Under any other name it may be somebody's own, and is never touched.
    """

    path: RelativePath
    blob: Blob
    by_content: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A relative symbolic link to something that is placed. `target` is a path below the root.

    `moved_from`: a link whose text is wholly of this pattern is turned, as a branch moves; its
    group is the commit. `title` is what to call such a branch.
    """

    path: RelativePath
    target: RelativePath
    moved_from: str = ""
    title: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        """What the link itself says."""
        here, there = self.path.parent.parts, self.target.parts
        shared = 0
        while here[shared : shared + 1] == there[shared : shared + 1] != ():
            shared += 1
        return "/".join([*[".."] * (len(here) - shared), *there[shared:]])


@dataclass(frozen=True, slots=True)
class Text:
    """A small file that makes others visible, so it is written after them.

    `merge` takes the text that stands there already and gives the one that should, so that what
    others put there is kept; without it the content replaces what was there. `names_in`: the text
    is a ref, the name of a folder in this one; `title` is what to call it.
    """

    path: RelativePath
    content: str
    merge: Callable[[str, Exists], str] | None = None
    names_in: RelativePath | None = None
    title: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Absent:
    """A path that must not exist, since it would hide something placed."""

    path: RelativePath


@dataclass(frozen=True, slots=True)
class Sealed:
    """A folder of which everything must be there, or nothing yet."""

    path: RelativePath


Placement = File | Link | Text | Absent | Sealed
