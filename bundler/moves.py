"""Names in a cache that lead to one commit now and are to lead to another: refs and branches."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bundler.layouts.placement import Link, Text
from bundler.names import relative_path
from bundler.relative import RelativePath


@dataclass(frozen=True, slots=True)
class Move:
    """A name at `path` below a root, from the commit that it leads to now to the bundle's."""

    path: RelativePath
    title: str
    """Such as `main of org/name`."""
    before: str
    after: str
    """Commit hashes."""
    is_kept: bool = False
    """The name stays with the commit that it leads to."""


def moves_of(root: Path, links: Iterable[Link], texts: Iterable[Text]) -> Iterator[Move]:
    """What there is to move when `links` and `texts` are written below `root`.

    A name that leads to nothing which is there is none: it is put right, not moved.
    """
    for link in links:
        if link.moved_from and (root / link.path).is_dir():
            before, after = (
                re.sub(link.moved_from, r"\1", text)
                for text in (os.readlink(root / link.path), link.text)
            )
            yield Move(link.path, link.title, before, after)
    for text in texts:
        if text.names_in is not None and (before := _folder_named(root, text)):
            yield Move(text.path, text.title, before, text.content)


def _folder_named(root: Path, ref: Text) -> str:
    """What a ref says now, if that is a folder which is there; huggingface_hub strips nothing."""
    try:
        content = (root / ref.path).read_text("utf-8")
        name = relative_path(content)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return ""
    return content if (root / str(ref.names_in) / name).is_dir() else ""
