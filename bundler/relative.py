"""Paths below some root, as they stand in manifests: text that can be asked for its parts.

`pathlib` would do, but not for a hundred thousand files: its objects take ten times the space and
the time of text, and most of what is done with them is to look them up in tables.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator


class RelativePath(str):
    """A path with forward slashes, without `.` and empty components; `RelativePath()`: the root.

    Law: it is equal to its text, and its members say what those of `pathlib.PurePosixPath` say.
    """

    __slots__ = ()

    def __truediv__(self, other: str) -> RelativePath:
        return RelativePath(f"{self}/{other}" if self and other else self or other)

    def __rtruediv__(self, other: str) -> RelativePath:
        return RelativePath(other) / self

    @property
    def parts(self) -> tuple[str, ...]:
        """The components."""
        return tuple(self.split("/")) if self else ()

    @property
    def name(self) -> str:
        """The last component."""
        return self.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The last component without its suffix."""
        name = self.name
        return name[: len(name) - len(self.suffix)]

    @property
    def suffix(self) -> str:
        """From the last dot of the last component on; empty if it only begins or ends with one."""
        name = self.name
        dot = name.rfind(".")
        return name[dot:] if 0 < dot < len(name) - 1 else ""

    @property
    def parent(self) -> RelativePath:
        """The folder that it is in; the root is in itself."""
        return RelativePath(self.rpartition("/")[0])

    @property
    def parents(self) -> Iterator[RelativePath]:
        """Every folder that it is in, the innermost first, the root last."""
        path = self
        while path:
            path = path.parent
            yield path

    def led_to(self, text: str) -> RelativePath:
        """Where a link here that says `text` leads, below the root or out of it."""
        return RelativePath(posixpath.normpath(posixpath.join(self.parent, text)))

    def start(self, count: int) -> RelativePath:
        """The first `count` components."""
        return RelativePath("/".join(self.parts[:count]))

    def relative_to(self, folder: str) -> RelativePath:
        """The way from `folder` to this. Raises ValueError if it is not below it."""
        if not folder or self == folder:
            return RelativePath(self[len(folder) :])
        if not self.startswith(f"{folder}/"):
            raise ValueError(f"{self} is not below {folder}")
        return RelativePath(self[len(folder) + 1 :])
