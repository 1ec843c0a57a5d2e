"""What is here of what a program looks for: one module for each kind of thing, reading only.

Each finds what it can at the places where the libraries look, and says of the rest what is wrong
and which command mends it.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

from bundler.content import Promise, flaw
from bundler.errors import BundlerError, DamagedError, TargetError, UnavailableError
from bundler.names import plain_text

AGAIN = "unpack its bundle again"
"""The cure for what was here as a whole once."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that keeps a model from loading. `cure`: what to do, a command if there is one."""

    text: str
    cure: str
    kind: type[BundlerError]

    def __str__(self) -> str:
        return plain_text(f"{self.text}: {self.cure}")


@dataclass(frozen=True, slots=True)
class Found:
    """What is here of one thing that a program looks for.

    `spec`: what the user calls it. `names`: what the library calls it, the first as it was asked
    for. `files`: by their paths within it, `sizes` their bytes. `promises`: what is known of the
    content of each, for those of which something is. `folder`: where all of it is, if nothing there
    lists what belongs to it.
    """

    spec: str
    names: tuple[str, ...]
    commit_hash: str | None = None
    folder: Path | None = None
    files: dict[str, Path] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    promises: dict[str, Promise] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def bring(self) -> str:
        """The cure for what is not here at all."""
        return f"bundler pack {word(self.spec)} where there is a network, and unpack that here"

    def add(self, inner: str, path: Path, size: int | None = None) -> None:
        """Note the file at `path`, and what is plainly wrong with it.

        `size`: the bytes that it should have, if that is known.
        """
        try:
            state = path.stat()
            if not stat.S_ISREG(state.st_mode):
                self.hindered(f"{path} is no file", f"move it away, and {AGAIN}")
                return
            plainly = flaw(path, inner, state.st_size)
        except PermissionError:
            self.closed(path)
            return
        except (OSError, ValueError):  # The latter of a name with a zero byte.
            what = "is a link that leads nowhere" if os.path.islink(path) else "is not there"
            self.missing(f"{path} {what}", AGAIN)
            return
        if not os.access(path, os.R_OK):
            self.closed(path)
            return
        self.files[inner] = path
        self.sizes[inner] = state.st_size
        if size is not None and size != state.st_size:
            plainly = plainly or f"has {state.st_size:,} bytes instead of {size:,}"
        if plainly is not None:
            self.damaged(f"{path} {plainly}", again_without(os.path.realpath(path)))

    def missing(self, text: str, cure: str) -> None:
        """Note that something is not there."""
        self.faults.append(Fault(text, cure, UnavailableError))

    def damaged(self, text: str, cure: str) -> None:
        """Note that something is not what it should be."""
        self.faults.append(Fault(text, cure, DamagedError))

    def hindered(self, text: str, cure: str) -> None:
        """Note that something is in the way."""
        self.faults.append(Fault(text, cure, TargetError))

    def closed(self, path: Path) -> None:
        """Note that whoever runs this may not read what is at `path`."""
        real = Path(os.path.realpath(path))
        shut = [folder for folder in real.parents if not os.access(folder, os.X_OK)]
        if shut or os.path.isdir(real):
            cure = f"sudo chmod -R a+rX {word([real, *shut][-1])}"
        else:
            cure = f"sudo chmod a+r {word(real)}"
        self.hindered(f"{path} cannot be read", cure)


def again_without(path: os.PathLike[str] | str) -> str:
    """The cure for what was here as a whole once, with `path`, a file or a folder, in the way."""
    return f"{AGAIN}, after rm {'-r ' if os.path.isdir(path) else ''}{word(path)}"


def word(text: os.PathLike[str] | str) -> str:
    """`text` as one word of a shell; with anything unprintable in it, of bash, zsh or ksh."""
    text = os.fspath(text)
    if text.isprintable():
        return quote(text)
    content = text.encode("utf-8", "surrogateescape")
    plain = (chr(b) if 31 < b < 127 and b not in b"'\\" else f"\\x{b:02x}" for b in content)
    return f"$'{''.join(plain)}'"
