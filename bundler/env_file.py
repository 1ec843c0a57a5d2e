"""The file that a shell sources, or a program reads, so that the caches are found."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from bundler.disk import entries, start_of
from bundler.environment import Roots
from bundler.errors import RequestError, TargetError
from bundler.read_only import link_datasets, with_own_places
from bundler.shells import EnvFormat, environment_text, is_own, read_variables
from bundler.whole_file import write_text

_ENDINGS = {
    EnvFormat.POWERSHELL: (".ps1",),
    EnvFormat.CMD: (".bat", ".cmd"),
    EnvFormat.CONDA: (".sh",),
}
"""What reads a file only if its name ends so."""
_LARGEST = 1 << 20
"""Bytes of such a file that are read."""
_VARIABLES = {
    "hf_home": "HF_HOME",
    "hub": "HF_HUB_CACHE",
    "datasets": "HF_DATASETS_CACHE",
    "torch_home": "TORCH_HOME",
}
"""What says in an environment file where each of the roots is."""


def env_path(env: Path | str | None, form: EnvFormat, roots: Roots) -> Path | None:
    """Where the environment file goes, absolute.

    A folder that is made for the caches at `roots` may be its place too. Raises RequestError if
    what reads `form` would not read a file of that name, and TargetError if it cannot be written
    there, or if a file is there that is not bundler's.
    """
    if env is None:
        return None
    path = Path(os.path.abspath(env))
    endings = _ENDINGS.get(form, (path.suffix,))
    if path.suffix not in endings:
        raise RequestError(
            f"{form.value} reads no {path.name}: name a file that ends in {endings[0]}, "
            f"such as --env offline{endings[0]}"
        )
    is_made = not path.parent.exists() and path.parent in roots.hf_home.parents
    if not is_made and not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise TargetError(
            f"cannot write {path.name} in {path.parent}: name another place with --env, "
            "such as --env ~/offline.env"
        )
    if path.exists() and not path.is_file():
        raise TargetError(f"{path} is not a file: name another place with --env")
    try:
        ours = is_own(_text(path))
    except FileNotFoundError:
        return path
    except OSError as error:
        raise TargetError(
            f"cannot write {path}: {error.strerror}; name another with --env"
        ) from None
    if not ours:
        raise TargetError(f"{path} is not bundler's own file: name another one with --env")
    return path


def extended_roots(
    path: Path | None, form: EnvFormat, roots: Roots, written: Collection[str]
) -> tuple[Roots, Roots | None]:
    """Where to install, and where the file at `path` is to lead: on, to what it led to before.

    So a second bundle extends the file. Roots that nobody named, and that an unpack has nothing
    for, stay as the file has them. `written`: the names (`Roots.path`) of the others.

    Raises RequestError if `form` cannot carry the roots.
    """
    if path is None:
        return roots, None
    kept = _kept(path, form, roots, written)
    environment_text(form, with_own_places(kept))
    # The receipt belongs where the file leads, for there it will be looked for.
    return (kept if os.access(kept.hf_home, os.W_OK) else roots), kept


def _kept(path: Path, form: EnvFormat, roots: Roots, written: Collection[str]) -> Roots:
    before = _places(_text(path), form) if path.exists() else {}
    own = {"hf_home": {"hub", "datasets"}, "torch_home": {"torch"}}
    kept: dict[str, Any] = {
        field: Path(before[variable])
        for field, variable in _VARIABLES.items()
        if variable in before
        and field not in roots.named
        and not own.get(field, {field}).intersection(written)
    }
    return replace(roots, **kept)


def write_env_file(path: Path, form: EnvFormat, roots: Roots) -> bool:
    """Write the file; True if it was there and led to something that it leads to no more.

    Raises RequestError if `form` cannot carry the roots, and TargetError.
    """
    text = environment_text(form, roots)
    is_there = path.exists()
    said = _text(path) if is_there else text
    replaced = said != text
    before = _places(said, form) if is_there else {}
    if before:
        now = {
            str(roots.hub),
            str(roots.datasets),
            str(roots.torch_home),
            *roots.variables().values(),
        }
        places = (before.get(_VARIABLES[field]) for field in ("hub", "datasets", "torch_home"))
        replaced = any(place and place not in now and entries(Path(place)) for place in places)
    link_datasets(roots)
    if said != text or not is_there:
        write_text(path, text, "--env")
    return replaced


def _places(text: str, form: EnvFormat) -> dict[str, str]:
    """The folders that a file of this text leads to; none if it is not read back."""
    found = read_variables(form, text)
    places = {name: found.get(name, "") for name in _VARIABLES.values()}
    return {n: place for n, place in places.items() if os.path.isabs(place) and "\0" not in place}


def _text(path: Path) -> str:
    return os.fsdecode(start_of(path, _LARGEST))
