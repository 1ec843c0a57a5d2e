"""A model that is on this machine already: a folder that `save_pretrained` wrote, or one file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bundler.errors import RequestError
from bundler.local_file import local_file
from bundler.manifest import Omission
from bundler.remote import RemoteSnapshot, Repositories
from bundler.web import Web


class Local:
    """Specs `file:PATH`. Only the last part of the path is carried."""

    scheme = "file"

    def resolve(self, rest: str, hub: Repositories, web: Web) -> Iterator[RemoteSnapshot]:
        path = Path(os.path.abspath(os.path.expanduser(rest)))
        if not path.exists():
            raise RequestError(f"there is no file or folder {rest}: check the path")
        left_out: list[str] = []
        try:
            if path.is_dir():
                folder, found = str(path), sorted(_below(path, left_out))
            else:
                folder, found = str(path.parent), [path.name]
            files = tuple(local_file(folder, name) for name in found)
        except (OSError, RuntimeError) as error:  # RuntimeError: links that lead round in a circle.
            reason = error.strerror if isinstance(error, OSError) else "links in a circle"
            place = getattr(error, "filename", None) or rest
            raise RequestError(f"cannot read {place}: {reason}") from None
        if not files or not path.name:
            raise RequestError(f"{rest} has no files in it")
        yield RemoteSnapshot(
            source=self.scheme,
            name=path.name,
            layout="flat",
            files=files,
            omitted=tuple(Omission(name, None, "hidden") for name in sorted(left_out)),
        )


def _below(folder: Path, left_out: list[str]) -> Iterator[str]:
    """The path of every file below `folder`, from there.

    What is hidden, such as `.git` and `.env`, goes to `left_out`.
    """
    todo = [(str(folder), "")]
    while todo:
        place, inner = todo.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                name = f"{inner}{entry.name}"
                if entry.name.startswith("."):
                    left_out.append(name)
                    continue
                if entry.is_symlink():
                    _check_link(entry, folder)
                if entry.is_dir():
                    todo.append((entry.path, f"{name}/"))
                else:
                    yield name


def _check_link(link: os.DirEntry[str], folder: Path) -> None:
    if link.is_dir() or folder.resolve() not in Path(link).resolve().parents:
        raise RequestError(
            f"{link.path} is a link that leads to a folder or out of {folder}: copy the folder "
            "with its links resolved (cp -rL) and pack the copy"
        )
