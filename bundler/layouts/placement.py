"""What must stand where below a root: the words in which layouts speak to the writer."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from bundler.digest import Blob

Exists = Callable[[PurePosixPath], bool]
"""Whether a path below the root exists."""


@dataclass(frozen=True, slots=True)
class File:
    """The content of a blob.

    `by_content`: the path says what the content is, so anything else that stands there is a damaged
    copy, and is replaced. Under any other name it may be somebody's own, and is never touched.
    """

    path: PurePosixPath
    blob: Blob
    by_content: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A relative symbolic link to something that is placed. `target` is a path below the root.

    `moved_from`: a link whose text is wholly of this pattern is turned, as a branch moves; its
    group is the commit. `title` is what to call such a branch.
    """

    path: PurePosixPath
    target: PurePosixPath
    moved_from: str = ""
    title: str = field(default="", compare=False)

    @property
    def text(self) -> str:
        """What the link itself says."""
        return posixpath.relpath(str(self.target), str(self.path.parent))


@dataclass(frozen=True, slots=True)
class Text:
    """A small file that makes others visible, so it is written after them.

    `merge` takes the text that stands there already and gives the one that should, so that what
    others put there is kept; without it the content replaces what was there. `names_in`: the text
    is a ref, the name of a folder in this one; `title` is what to call it.
    """

    path: PurePosixPath
    content: str
    merge: Callable[[str, Exists], str] | None = None
    names_in: PurePosixPath | None = None
    title: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Absent:
    """A path that must not exist, since it would hide something placed."""

    path: PurePosixPath


@dataclass(frozen=True, slots=True)
class Sealed:
    """A folder of which everything must be there, or nothing yet."""

    path: PurePosixPath


Placement = File | Link | Text | Absent | Sealed
