"""How programs load what a spec names: by which library, and with which arguments.

The arguments are those of the functions in load_program.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bundler.catalogues import catalogue
from bundler.checking import CheckedModel
from bundler.checks import Found
from bundler.completeness import MODULES
from bundler.documents import json_at
from bundler.environment import Roots
from bundler.lookups import FacePack, HubCode, Lookup, PlainPath, Repository, lookups
from bundler.remote import SMALL
from bundler.spec import Spec, name_and_revision

_CONFIG = "config.json"
_TOKENIZERS = ("tokenizer_config.json", "tokenizer.json")
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_CONFIGS_OF_CODE = (_CONFIG, *_TOKENIZERS[:1], *_PROCESSORS)
"""Where transformers looks for `auto_map`, the names of a repository's own classes."""
_TENSORS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".th", ".pth.tar")
_NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Way:
    """A library, the arguments for it, and whether it would run code that the model brings."""

    library: str
    arguments: Mapping[str, Any]
    code: bool = False


def ways(
    model: CheckedModel,
    roots: Roots,
    *,
    trust_code: bool = False,
    left_out: Collection[str] = _NOTHING,
) -> Iterator[Way]:
    """The ways to load `model`, by the words of its spec and by the files that it has.

    `trust_code`: a file that is opened by its path may hold more than tensors. `left_out`: files
    that it would have, had the user not said otherwise, and that programs will look for.
    """
    spec = Spec.parse(model.spec)
    if spec.scheme == "timm":
        yield _timm(spec, model)
    elif spec.scheme == "torchvision":
        name, _, named = spec.rest.partition("@")
        yield Way("torchvision", {"name": name, "weights": [named] if named else _weights(model)})
    else:
        for lookup, found in zip(lookups(spec), model.found, strict=True):
            if isinstance(lookup, HubCode):
                hub = {"name": lookup.name, "ref": lookup.ref, "entry": lookup.entry}
                yield Way("torch.hub", hub, code=True)
                return  # What else there is are weights of the entry.
            yield _way(lookup, found, roots, trust_code, left_out)


def _timm(spec: Spec, model: CheckedModel) -> Way:
    name, revision = name_and_revision(spec.rest)
    place = next((found.names[0] for found in model.found if found.commit_hash), None)
    overlay = {"hf_hub_id": f"{place}@{revision}"} if revision and place else None
    return Way("timm", {"name": name, "overlay": overlay})


def _weights(model: CheckedModel) -> list[str]:
    """The names of torchvision's weights that are here."""
    known: Mapping[str, str] = catalogue("torchvision")["models"][Spec.parse(model.spec).rest][
        "weights"
    ]
    here = {path.name for path in model.files}
    return [name for name, url in known.items() if url.rpartition("/")[2] in here]


def _way(
    lookup: Lookup, found: Found, roots: Roots, trust_code: bool, left_out: Collection[str]
) -> Way:
    if isinstance(lookup, FacePack):
        return Way("insightface", {"name": lookup.name, "root": str(roots.insightface)})
    if isinstance(lookup, Repository):
        if lookup.kind == "dataset" and found.commit_hash is None:
            return Way("datasets", {"name": lookup.name})
        at = {"name": lookup.name, "revision": lookup.revision}
        way = _by_files(at, found, lookup.library, left_out) if lookup.kind == "model" else None
        return way or Way("huggingface_hub", {**at, "kind": lookup.kind})
    if isinstance(lookup, PlainPath) and len(found.files) > 1:
        at = {"name": _folder(found), "revision": None}
        way = _by_files(at, found, None, left_out)
        if way is not None:
            return way
    paths = sorted(map(str, found.files.values()))
    tensors = [path for path in paths if path.lower().endswith(_TENSORS)]
    if tensors:
        return Way("torch", {"paths": tensors, "code": trust_code})
    return Way("plain reading", {"paths": paths})


def _by_files(
    at: Mapping[str, str | None], found: Found, library: str | None, left_out: Collection[str]
) -> Way | None:
    """The library that a model's files are of, if they tell."""
    maps = [_document(found, name).get("auto_map") for name in _CONFIGS_OF_CODE]
    if library == "sentence-transformers" or MODULES in found.files:
        code = any(maps) or any(not _is_of_library(part) for part in _parts(found))
        return Way("sentence-transformers", {**at, "code": code}, code)
    if "model_index.json" in found.files:
        code = any(path.endswith(".py") for path in found.files)
        return Way("diffusers", {**at, "code": code}, code)
    if "adapter_config.json" in found.files and _CONFIG not in found.files:
        return Way("peft", at)
    config = _document(found, _CONFIG)
    if "model_type" in config or "auto_map" in config:
        names = {*found.files, *left_out}
        arguments = {
            **at,
            "classes": [*_strings(config.get("architectures"))[:1], *_own_classes(maps[0])],
            "tokenizer": not names.isdisjoint(_TOKENIZERS),
            "processor": not names.isdisjoint(_PROCESSORS),
            "code": any(maps),
        }
        return Way("transformers", arguments, any(maps))
    if "architecture" in config:
        place = f"{at['name']}@{at['revision']}" if at["revision"] else at["name"]
        where = "local-dir" if found.commit_hash is None else "hf-hub"
        return Way("timm", {"name": f"{where}:{place}", "overlay": None})
    return None


def _folder(found: Found) -> str:
    """The folder that a path means: the files have paths within it."""
    inner, path = next(iter(found.files.items()))
    return str(path.parents[inner.count("/")])


def _own_classes(auto_map: object) -> list[str]:
    """The classes of transformers for which a model has one of its own, the plainest first."""
    names = sorted(auto_map) if isinstance(auto_map, dict) else []
    return [name for name in names if name.startswith("AutoModel")]


def _strings(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _is_of_library(part: object) -> bool:
    kind = part.get("type") if isinstance(part, dict) else None
    return isinstance(kind, str) and kind.startswith("sentence_transformers.")


def _parts(found: Found) -> list[Any]:
    content = _content(found, MODULES)
    return content if isinstance(content, list) else []


def _document(found: Found, path: str) -> dict[str, Any]:
    content = _content(found, path)
    return content if isinstance(content, dict) else {}


def _content(found: Found, path: str) -> Any:
    """What a file of JSON says; None if it is not there, or is none."""
    return json_at(found.files[path], SMALL) if path in found.files else None
