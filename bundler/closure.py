"""What one model needs from other repositories, as its configuration files say.

The places are those that the libraries read: `auto_map` (transformers/dynamic_module_utils.py),
adapters (peft/config.py), timm backbones (transformers' `timm_backbone`, `timm_wrapper` and
`use_timm_backbone`), and the parts of diffusers' modular pipelines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bundler.documents import json_in
from bundler.errors import shown
from bundler.relative import RelativePath
from bundler.remote import SMALL

_AUTO_MAPS = frozenset(
    {
        "config.json",
        "tokenizer_config.json",
        "processor_config.json",
        "preprocessor_config.json",
        "video_preprocessor_config.json",
    }
)
_PIPELINES = frozenset({"model_index.json", "modular_model_index.json"})
_ADAPTER = "adapter_config.json"
_MODULES = "modules.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Need:
    """`spec` is needed by a model, by what its configuration says; of it perhaps only the code."""

    spec: str
    code_only: bool = False


@dataclass(frozen=True, slots=True)
class Closure:
    """What a model needs beside itself, and what is needed but cannot be found by its name."""

    needs: tuple[Need, ...]
    notes: tuple[str, ...] = ()


def closure(
    names: Collection[str], files: Mapping[str, int | None], content: Callable[[str], bytes]
) -> Closure:
    """What else a model needs that is known by `names`, the first of which it is told by.

    `files`: the sizes in bytes by their paths; `content` gives small configuration files.
    A file that is no JSON counts as one that needs nothing: the library will say so, if it matters.
    Raises what `content` raises.
    """
    needs: dict[str, Need] = {}
    notes = []
    name, *_ = names
    for path in _configurations(files):
        for need in _named(RelativePath(path).name, json_in(content(path))):
            spec = need.spec
            other = spec.removeprefix("timm:")
            if not _HUB_ID.fullmatch(other.partition("@")[0]):
                notes.append(
                    f"{name} needs {shown(other)}, which {path} names by a place on its author's "
                    "machine: pack that model by its own name too"
                )
            elif other.partition("@")[0] in names:
                continue
            elif spec not in needs or needs[spec].code_only:
                needs[spec] = need
    return Closure(tuple(needs.values()), tuple(notes))


def _configurations(files: Mapping[str, int | None]) -> Iterator[str]:
    """The files that may name others, at the top and in the folders of a model in parts."""
    in_parts = bool(files.keys() & (_PIPELINES | {_MODULES}))
    for name, size in files.items():
        path = RelativePath(name)
        known = path.name in _AUTO_MAPS or path.name == _ADAPTER
        if (size or 0) <= SMALL and (
            (len(path.parts) == 1 and (known or path.name in _PIPELINES))
            or (len(path.parts) == 2 and in_parts and path.name in ("config.json", _ADAPTER))
        ):
            yield name


def _named(file: str, document: Any) -> Iterator[Need]:
    """What a configuration file names."""
    if not isinstance(document, dict):
        return
    if file == _ADAPTER:
        base, revision = document.get("base_model_name_or_path"), document.get("revision")
        if isinstance(base, str) and base:
            yield Need(f"{base}@{revision}" if revision and isinstance(revision, str) else base)
    elif file in _PIPELINES:
        yield from map(Need, _pipeline(document))
    else:
        yield from (Need(spec, code_only=True) for spec in _auto_map(document))
        if file == "config.json":
            yield from map(Need, _backbones(document))


def _auto_map(document: dict[str, Any]) -> Iterator[str]:
    """Classes written `org/name--module.Class` are in the code of another repository."""
    found = document.get("auto_map")
    for value in found.values() if isinstance(found, dict) else [found]:
        for reference in value if isinstance(value, list) else [value]:
            if isinstance(reference, str) and "--" in reference:
                yield reference.partition("--")[0]


def _backbones(document: dict[str, Any]) -> Iterator[str]:
    inner = document.get("backbone_config")
    for config in (document, inner if isinstance(inner, dict) else {}):
        backbone = config.get("backbone")
        if not isinstance(backbone, str) or config.get("use_pretrained_backbone") is False:
            continue
        is_timm = config.get("use_timm_backbone") or config.get("model_type") == "timm_backbone"
        if is_timm:
            yield f"timm:{backbone}"
        elif config.get("use_pretrained_backbone"):
            yield backbone


def _pipeline(document: dict[str, Any]) -> Iterator[str]:
    """Parts of a pipeline that are kept in repositories of their own."""
    for part in document.values():
        for place in part if isinstance(part, list) else ():
            if not isinstance(place, dict):
                continue
            name = place.get("pretrained_model_name_or_path") or place.get("repo")
            revision = place.get("revision")
            if isinstance(name, str) and name:
                yield f"{name}@{revision}" if revision and isinstance(revision, str) else name
