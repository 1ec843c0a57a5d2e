"""What must be among the files of a model for it to load, as far as its own files tell.

The rules are what the libraries do without a file: transformers/utils/hub.py and modeling_utils.py
(configuration, weights, shards), sentence_transformers/base/model.py (parts), diffusers'
pipeline_utils.py (the folders of a pipeline), peft/config.py (adapters).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from bundler.remote import SMALL
from bundler.selection import weight_formats

MODULES = "modules.json"
"""What a model of sentence-transformers consists of."""
_ADAPTER = "adapter_config.json"
_PIPELINE = "model_index.json"
_TOKENIZER = "tokenizer_config.json"
_VOCABULARIES = ("vocab.txt", "vocab.json", "merges.txt", "vocab.bpe", "dict.txt")
_VOCABULARY_SUFFIXES = (".model", ".spm", ".tiktoken", ".vocab", ".bpe")
_OF_BYTES = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")
"""Tokenizers that have no vocabulary."""

Read = Callable[[str], bytes]
"""The content of a small file, by its path. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Absence:
    """A file that must be there, and why."""

    path: str
    reason: str


def absences(files: Mapping[str, int], read: Read, library: str | None = None) -> list[Absence]:
    """What a model lacks whose files have these sizes in bytes.

    `library` is the one that loads it, if that is known: sentence-transformers, timm.
    """
    found = [*_shards(files, read), *_vocabularies(files, read)]
    if library == "sentence-transformers" and MODULES not in files:
        found.append(Absence(MODULES, "without it another model is built, with other embeddings"))
    if MODULES in files:
        with suppress(ValueError, OSError):
            configs = part_configs(read(MODULES))
            why = f"{MODULES} names its folder"
            found += [Absence(path, why) for path in configs if path not in files]
    if _PIPELINE in files:
        found += _pipeline(files, read)
    elif not _has_weights(files):
        found.append(Absence("model.safetensors", "there are no weights"))
    elif library != "timm":
        found += _configuration(files)
    return list(dict.fromkeys(found))


def absent_shards(files: Collection[str], read: Read) -> Iterator[tuple[str, str]]:
    """The files that a list of shards names and that are not there, each with that list.

    None of one is no fault where other weights are: those of that form were not wanted.
    """
    has_weights = bool(weight_formats(map(PurePosixPath, files)))
    for index in sorted(path for path in files if path.endswith(".index.json")):
        shards = _document(read, index).get("weight_map")
        names = shards.values() if isinstance(shards, dict) else ()
        paths = {str(PurePosixPath(index).parent / str(name)) for name in names}
        if paths & {*files} or not has_weights:
            yield from ((path, index) for path in sorted(paths - {*files}))


def part_configs(modules: bytes) -> list[str]:
    """The configuration files without which sentence-transformers cannot make a model's parts.

    `modules` is the content of modules.json. Raises ValueError if it is none.
    """
    try:
        parts = [(str(part["path"]), str(part["type"])) for part in json.loads(modules)]
    except (TypeError, KeyError, RecursionError):
        raise ValueError("not a list of parts") from None
    if not parts:
        raise ValueError("no parts")
    return [str(PurePosixPath(folder, "config.json")) for folder, kind in parts
            if kind.endswith((".Pooling", ".Dense"))]  # fmt: skip


def _shards(files: Mapping[str, int], read: Read) -> Iterator[Absence]:
    for path, index in absent_shards(files, read):
        yield Absence(path, f"{index} names it")


def _vocabularies(files: Mapping[str, int], read: Read) -> Iterator[Absence]:
    folders: dict[PurePosixPath, set[str]] = {}
    for path in map(PurePosixPath, files):
        folders.setdefault(path.parent, set()).add(path.name)
    for folder, names in folders.items():
        known = {"tokenizer.json", "tekken.json", *_VOCABULARIES}
        if _TOKENIZER not in names or names & known:
            continue
        if any(name.endswith(_VOCABULARY_SUFFIXES) for name in names):
            continue
        document = _document(read, str(folder / _TOKENIZER))
        if "auto_map" not in document and document.get("tokenizer_class") not in _OF_BYTES:
            yield Absence(
                str(folder / "tokenizer.json"), "without a vocabulary every word is unknown"
            )


def _pipeline(files: Mapping[str, int], read: Read) -> Iterator[Absence]:
    """The folders of a pipeline's parts; a part that is none is written [null, null]."""
    for part, made_by in _document(read, _PIPELINE).items():
        if not (isinstance(made_by, list) and len(made_by) >= 2 and isinstance(made_by[1], str)):
            continue
        inside = [path for path in files if path.startswith(f"{part}/")]
        if len(made_by) > 2 and isinstance(made_by[2], dict):
            continue  # Kept in a repository of its own.
        if not inside:
            yield Absence(f"{part}/", f"{_PIPELINE} names it")
        elif f"{part}/config.json" in inside and not _has_weights({p: files[p] for p in inside}):
            yield Absence(f"{part}/model.safetensors", "there are no weights")


def _configuration(files: Mapping[str, int]) -> Iterator[Absence]:
    if files.keys() & {"config.json", _ADAPTER, MODULES}:
        return
    for path in files:
        if re.fullmatch(r"(pytorch_)?model([-.][^/]*)?\.(safetensors|bin)", path):
            yield Absence("config.json", f"{path} does not load without it")
            return


def _has_weights(files: Mapping[str, int]) -> bool:
    # Whatever else weights are called, they are large.
    has_format = bool(weight_formats(map(PurePosixPath, files)))
    return has_format or any(size > SMALL for size in files.values())


def _document(read: Read, path: str) -> dict[str, Any]:
    """A configuration file; one that is no JSON object counts as an empty one."""
    with suppress(OSError, ValueError, RecursionError):
        document = json.loads(read(path))
        if isinstance(document, dict):
            return document
    return {}
