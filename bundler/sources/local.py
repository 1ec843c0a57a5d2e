"""A model that is on this machine already: a folder that `save_pretrained` wrote, or one file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bundler.digest import Stream
from bundler.download import Web
from bundler.errors import DamagedError, RequestError, shown
from bundler.hub import Hub
from bundler.manifest import Omission
from bundler.remote import RemoteFile, RemoteSnapshot


class Local:
    """Specs `file:PATH`. Only the last part of the path is carried."""

    scheme = "file"

    def resolve(self, rest: str, hub: Hub, web: Web) -> Iterator[RemoteSnapshot]:
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
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise RequestError(f"{path} is not a file: move it away, and pack again")
    inner = path.name if path == start else path.relative_to(start).as_posix()
    return RemoteFile(
        path=inner,
        open=partial(_open, path, state.st_size, state.st_mtime_ns),
        # A file that was changed is other content, under the same name.
        identity=f"file:{path}:{state.st_ino}:{state.st_size}:{state.st_mtime_ns}",
        size=state.st_size,
    )


def _open(path: Path, size: int, mtime_ns: int, offset: int) -> Stream:
    try:
        content = open(path, "rb", buffering=0)  # noqa: SIM115, the caller closes it
        content.seek(offset)
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    return _Unchanged(content, path, size, mtime_ns)


class _Unchanged:
    """A local file's content; an error if it is written to while it is read."""

    def __init__(self, content: Stream, path: Path, size: int, mtime_ns: int) -> None:
        self._content = content
        self._path = path
        self._state = (size, mtime_ns)

    def read(self, size: int = -1, /) -> bytes:
        try:
            data = self._content.read(size)
            state = self._path.stat()
        except OSError as error:
            raise DamagedError(f"cannot read {self._path}: {error.strerror}") from None
        if not data and (state.st_size, state.st_mtime_ns) != self._state:
            raise DamagedError(f"{shown(self._path)} was changed while it was read: pack again")
        return data

    def close(self) -> None:
        self._content.close()
