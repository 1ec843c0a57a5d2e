"""A pack of insightface, where `FaceAnalysis` looks (insightface/app/face_analysis.py).

A folder that is there is never downloaded again, though it be empty; and one in the working
directory of the same name is taken instead.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from bundler.checks import Found, again_without, word
from bundler.disk import entries, files_below
from bundler.environment import Roots
from bundler.errors import RequestError
from bundler.lookups import FacePack
from bundler.names import relative_path

_SUFFIX = ".onnx"


def find_pack(wanted: FacePack, spec: str, roots: Roots, start: Path) -> Found:
    """The models of the pack that is there, for programs that are started in the folder `start`.

    Raises RequestError for an impossible name.
    """
    found = Found(spec, (wanted.name,))
    try:
        folder = roots.insightface / "models" / relative_path(wanted.name)
    except ValueError as error:
        raise RequestError(f"no pack of insightface: {error}") from None
    if not os.path.isdir(folder):
        found.missing(f"{wanted.name} is not in {folder.parent}", found.bring)
        return found
    found = replace(found, folder=folder)
    for path in _models(folder):
        found.add(path.name, path)
    if not found.files and not found.faults:
        _explain_absence(found, folder)
    here = start / wanted.name
    if os.path.isdir(here) and not os.path.samefile(here, folder):
        if _models(here):
            found.notes.append(f"./{wanted.name} is here, and is taken instead of {folder}")
        else:
            found.hindered(
                f"./{wanted.name} is taken instead of {folder} by programs that start here",
                "start them in another folder, or move it away",
            )
    return found


def _explain_absence(found: Found, folder: Path) -> None:
    nested = [path.parent for path in files_below(folder) if path.suffix == _SUFFIX]
    if nested:
        found.missing(
            f"{folder} has its models one folder too deep",
            f"mv {word(nested[0])}/*{_SUFFIX} {word(folder)}",
        )
    else:
        found.missing(
            f"{folder} has no models in it, on which insightface fails with a bare AssertionError",
            again_without(folder),
        )


def _models(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if path.suffix == _SUFFIX]
