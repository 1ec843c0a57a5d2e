"""The file that a shell sources so that the caches are found."""

from __future__ import annotations

import os
from pathlib import Path

from bundler.environment import MARK, Roots, shell_file
from bundler.errors import TargetError
from bundler.whole_file import write_text

ENV_FILE = "offline.env"


def env_path(env: Path | str | None) -> Path | None:
    """Where the environment file goes, absolute.

    Raises TargetError if it cannot be written there, or if a file is there that is not bundler's.
    """
    if env is None:
        return None
    path = Path(os.path.abspath(env))
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise TargetError(
            f"cannot write {path.name} in {path.parent}: name another place with --env, "
            "such as --env ~/offline.env"
        )
    if path.exists() and not path.is_file():
        raise TargetError(f"{path} is not a file: name another place with --env")
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            ours = file.readline().rstrip("\n") == MARK
    except FileNotFoundError:
        return path
    except OSError as error:
        raise TargetError(
            f"cannot write {path}: {error.strerror}; name another with --env"
        ) from None
    if not ours:
        raise TargetError(f"{path} is not bundler's own file: name another one with --env")
    return path


def write_env_file(path: Path, roots: Roots) -> bool:
    """Write the file; True if it was there and named other places. Raises TargetError."""
    text = shell_file(roots.variables())
    replaced = path.exists() and path.read_bytes() != os.fsencode(text)
    write_text(path, text, "--env")
    return replaced
