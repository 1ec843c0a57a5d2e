"""A request: a TOML file that lists specs, so that a bundle can be made again.

models = [
    "bert-base-uncased",
    { spec = "openai-community/gpt2", revision = "e7da7f2", exclude = ["*.h5"] },
]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundler.errors import RequestError
from bundler.selection import Selection
from bundler.spec import Spec

_FORM = 'models = ["org/name", …]'
_KEYS = {"spec", "revision", "include", "exclude", "all_files"}
_REVISED = ("hf", "dataset", "space", "timm", "sentence-transformers", "torchhub")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A spec, and what is said about the files of this one alone; None: the same as of all."""

    spec: str
    selection: Selection | None = None


def read_request(path: Path | str) -> list[Wanted]:
    """What the file lists. Raises RequestError."""
    if sys.version_info >= (3, 11):  # Here: most who name models write no file.
        import tomllib
    else:
        import tomli as tomllib

    try:
        document = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path} is not a list of models: write {_FORM} ({error})") from None
    models = document.pop("models", None)
    if document:
        raise RequestError(f"{path}: {', '.join(document)} is not known; only models = […] is")
    if not isinstance(models, list) or not all(isinstance(model, (str, dict)) for model in models):
        raise RequestError(f"{path} needs a list of specs: {_FORM}")
    try:
        return [Wanted(model) if isinstance(model, str) else _wanted(model) for model in models]
    except (ValueError, RequestError) as error:
        raise RequestError(f"{path}: {error}") from None


def _wanted(table: Mapping[str, Any]) -> Wanted:
    unknown = set(table) - _KEYS
    if unknown:
        known = ", ".join(sorted(_KEYS))
        raise ValueError(f"{', '.join(sorted(unknown))} is not known of a model; {known} are")
    spec, revision = table.get("spec"), table.get("revision")
    if not isinstance(spec, str):
        raise ValueError('a model in braces needs its name: { spec = "org/name", … }')
    if "revision" in table:
        if not isinstance(revision, str) or not revision:
            raise ValueError(f'revision of {spec} is not a name: revision = "v1.0"')
        spec = _revised(spec, revision)
    for key in ("include", "exclude"):
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(glob, str) for glob in value):
            raise ValueError(f'{key} of {spec} is not a list of globs: {key} = ["*.json"]')
    all_files = table.get("all_files", False)
    if not isinstance(all_files, bool):
        raise ValueError(f"all_files of {spec} is not true or false")
    if not table.keys() & {"include", "exclude", "all_files"}:
        return Wanted(spec)
    include, exclude = table.get("include", ()), table.get("exclude", ())
    return Wanted(spec, Selection(tuple(include), tuple(exclude), all_files))


def _revised(text: str, revision: str) -> str:
    """The spec `text` at `revision`, as it would be written in one word."""
    spec = Spec.parse(text)
    if spec.scheme not in _REVISED:
        raise ValueError(f"{text} has no revisions")
    if "@" in spec.rest or (spec.scheme == "torchhub" and ":" in spec.rest):
        raise ValueError(f"{text} has a revision already, and {revision} is another")
    name, hash_, entry = text.partition("#")
    return f"{name}@{revision}{hash_}{entry}"
