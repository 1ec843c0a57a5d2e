"""A model that is on this machine already: a folder that `save_pretrained` wrote, or one file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bundler.errors import RequestError
from bundler.local_file import local_file
from bundler.manifest import Omission
from bundler.remote import RemoteFile, RemoteSnapshot, Repositories
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
            found = sorted(_below(path, left_out)) if path.is_dir() else [path]
            files = tuple(_file(path, member) for member in found)
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


def _below(folder: Path, left_out: list[str]) -> Iterator[Path]:
    """Every file below `folder`; what is hidden, such as `.git` and `.env`, goes to `left_out`."""

    def refuse(error: OSError) -> None:
        raise error

    real = folder.resolve()
    for inner, folders, names in os.walk(folder, onerror=refuse):
        hidden = [name for name in [*folders, *names] if name.startswith(".")]
        left_out += [Path(inner, name).relative_to(folder).as_posix() for name in hidden]
        folders[:] = [name for name in folders if name not in hidden]
        for name in [*folders, *names]:
            path = Path(inner, name)
            if name in hidden:
                continue
            if path.is_symlink() and (real not in path.resolve().parents or path.is_dir()):
                raise RequestError(
                    f"{path} is a link that leads to a folder or out of {folder}: copy the folder "
                    "with its links resolved (cp -rL) and pack the copy"
                )
            if name in names:
                yield path


def _file(start: Path, path: Path) -> RemoteFile:
    inner = path.name if path == start else path.relative_to(start).as_posix()
    return local_file(path, inner)
