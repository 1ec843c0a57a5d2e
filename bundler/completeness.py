"""What must be among the files of a model for it to load, as far as its own files tell.

The rules are what the libraries do without a file: transformers/utils/hub.py and modeling_utils.py
(configuration, weights, shards), sentence_transformers/base/model.py (parts), diffusers'
pipeline_utils.py (the folders of a pipeline), peft/config.py (adapters).
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from bundler.documents import MALFORMED, json_in
from bundler.remote import SMALL
from bundler.selection import weight_formats

MODULES = "modules.json"
"""What a model of sentence-transformers consists of."""
_ADAPTER = "adapter_config.json"
_PIPELINE = "model_index.json"
_TOKENIZER = "tokenizer_config.json"
_VOCABULARIES = {"tokenizer.json", "tekken.json", "vocab.txt", "vocab.json", "merges.txt",
                 "vocab-src.json", "encoder.json", "entity_vocab.json", "byte_maps.json",
                 "dict.txt"}  # fmt: skip
_VOCABULARY_SUFFIXES = {".model", ".spm", ".tiktoken", ".vocab", ".bpe", ".tokenizer"}
_OF_BYTES = ("ByT5Tokenizer", "CanineTokenizer", "DiaTokenizer", "PerceiverTokenizer")
"""Tokenizers that have no vocabulary. No set: what a file says may have no hash."""
_LOADED = {_ADAPTER, _PIPELINE, _TOKENIZER, "config.json", "generation_config.json",
           "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
           "chat_template.json", "preprocessor_config.json", "processor_config.json",
           "video_preprocessor_config.json"}  # fmt: skip
"""What transformers, peft and diffusers load wherever there is one."""
_SENTENCES = {MODULES, "sentence_bert_config.json", "config_sentence_transformers.json"}
"""And sentence-transformers beside."""
_STANDARD = re.compile(
    r"(diffusion_pytorch_model|pytorch_model|model)(\.\w+)?(-\d{5}-of-\d{5})?(\.\w+)?"
    r"\.(safetensors|bin)"
)
_OF_NO_MODEL = re.compile("Tokenizer|Scheduler|Processor|FeatureExtractor")
"""Parts of a pipeline that have no weights, by their classes."""
_OTHER_WEIGHTS = {".joblib", ".keras", ".mlmodel", ".nemo", ".npz", ".pickle", ".pkl", ".pt2",
                  ".skops", ".th"}  # fmt: skip

Read = Callable[[str], bytes]
"""The content of a small file, by its path. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Absence:
    """A file that must be there, and why."""

    path: str
    reason: str


def absences(
    files: Mapping[str, int],
    read: Read,
    library: str | None = None,
    listed: Collection[str] = (),
    *,
    is_model: bool = True,
) -> list[Absence]:
    """What a model lacks whose files have these sizes in bytes.

    `library` is the one that loads it, if that is known: sentence-transformers, timm. `listed`:
    the files that its author gave it, if that is known, with which nobody can miss any others.
    Something that may be no model (`is_model`) needs weights only if it says that it has some.
    """
    if library == "timm":  # It opens nothing else: timm/models/_hub.py.
        return [*_weights(files, listed)]
    found = [*_shards(files, read), *_parts(files, read, library)]
    if _PIPELINE in files:
        found += _pipeline(files, read)
    elif is_model or "architectures" in _document(files, read, "config.json"):
        found += _weights(files, listed)
    found += _vocabularies(files, read, listed)
    found += _listed(files, listed, library) if listed else _configuration(files, is_model=is_model)
    return list({absence.path: absence for absence in reversed(found)}.values())[::-1]


def absent_shards(files: Collection[str], read: Read) -> Iterator[tuple[str, str]]:
    """The files that a list of shards names and that are not there, each with that list.

    None of one is no fault where other weights are: those of that form were not wanted.
    """
    has_weights = bool(weight_formats(files))
    for index in sorted(path for path in files if path.endswith(".index.json")):
        shards = _document(files, read, index).get("weight_map")
        names = shards.values() if isinstance(shards, dict) else ()
        paths = {str(PurePosixPath(index).parent / name) for name in {*map(str, names)}}
        if paths & {*files} or not has_weights:
            yield from ((path, index) for path in sorted(paths - {*files}))


def part_configs(modules: bytes) -> list[str]:
    """The configuration files without which sentence-transformers cannot make a model's parts.

    `modules` is the content of modules.json. Raises ValueError if it is none.
    """
    try:
        parts = [(str(part["path"]), str(part["type"])) for part in json.loads(modules)]
    except MALFORMED:
        raise ValueError("not a list of parts") from None
    if not parts:
        raise ValueError("no parts")
    return [str(PurePosixPath(folder, "config.json")) for folder, kind in parts
            if kind.endswith((".Pooling", ".Dense"))]  # fmt: skip


def _shards(files: Mapping[str, int], read: Read) -> Iterator[Absence]:
    for path, index in absent_shards(files, read):
        yield Absence(path, f"{index} names it")


def _parts(files: Mapping[str, int], read: Read, library: str | None) -> Iterator[Absence]:
    if MODULES in files:
        try:
            for path in part_configs(read(MODULES)):
                if path not in files:
                    yield Absence(path, f"{MODULES} names its folder")
            return
        except (ValueError, OSError):
            pass  # Of no use to anybody, as if there were none.
    if library == "sentence-transformers":
        yield Absence(MODULES, "without it another model is built, with other embeddings")


def _pipeline(files: Mapping[str, int], read: Read) -> Iterator[Absence]:
    """The folders of a pipeline's parts; a part that is none is written [null, null]."""
    inside = _by_folder(files)
    for part, made_by in _document(files, read, _PIPELINE).items():
        if not (isinstance(made_by, list) and len(made_by) >= 2 and isinstance(made_by[1], str)):
            continue
        if len(made_by) > 2 and isinstance(made_by[2], dict):
            continue  # Kept in a repository of its own.
        names = inside[part] if part else []
        if not names:
            yield Absence(f"{part}/", f"{_PIPELINE} names it")
        elif (
            "config.json" in names
            and not _OF_NO_MODEL.search(made_by[1])
            and not _has_weights({name: files[f"{part}/{name}"] for name in names})
        ):
            yield Absence(f"{part}/model.safetensors", "there are no weights")


def _weights(files: Mapping[str, int], listed: Collection[str]) -> Iterator[Absence]:
    """Weights, of which one form is enough; those of PyTorch are what most programs load."""
    standard = sorted(path for path in listed if _STANDARD.fullmatch(path))
    has_one = any(path in files for path in standard) or any(p.endswith(".gguf") for p in files)
    if standard and not has_one:
        yield Absence(standard[0], "there are no weights")
    elif not _has_weights(files) and (not listed or _has_weights(dict.fromkeys(listed, 0))):
        name = "adapter_model.safetensors" if _ADAPTER in files else "model.safetensors"
        yield Absence(name, "there are no weights")


def _vocabularies(
    files: Mapping[str, int], read: Read, listed: Collection[str]
) -> Iterator[Absence]:
    authors = _by_folder(listed)
    for folder, names in _by_folder(files).items():
        if _TOKENIZER not in names or any(map(_is_vocabulary, names)):
            continue
        path = PurePosixPath(folder)
        document = _document(files, read, str(path / _TOKENIZER))
        if "auto_map" in document or document.get("tokenizer_class") in _OF_BYTES:
            continue
        known = sorted(filter(_is_vocabulary, authors.get(folder, ())))
        if known or not listed:
            name = "tokenizer.json" if not known or "tokenizer.json" in known else known[0]
            yield Absence(str(path / name), "without a vocabulary every word is unknown")


def _listed(
    files: Mapping[str, int], listed: Collection[str], library: str | None
) -> Iterator[Absence]:
    """What its author gave a model, and libraries take wherever there is one."""
    folders = _by_folder(files)
    of_sentences = library == "sentence-transformers" or MODULES in files
    loaded = _LOADED | (_SENTENCES if of_sentences else set())
    # Of a pipeline diffusers wants every file, but for folders with weights.
    whole = {
        folder
        for folder, names in _by_folder(listed).items()
        if folder and _PIPELINE in files and not weight_formats(names)
    }
    for path in sorted({*listed} - files.keys()):
        folder, _, name = path.rpartition("/")
        if (folder in folders or not folder) and (name in loaded or folder in whole):
            yield Absence(path, "its list of files names it")


def _configuration(files: Mapping[str, int], *, is_model: bool) -> Iterator[Absence]:
    """What standard weights need, where nothing says that another library has a form of its own."""
    standard = sorted(path for path in files if _STANDARD.fullmatch(path) and path != "model.bin")
    others = {
        path
        for path in files.keys() - _LOADED
        if path.endswith((".json", ".yaml", ".yml"))
        and not ("/" in path or path.endswith(".index.json") or _is_vocabulary(path))
    }
    has_its_own = others or files.keys() & {"config.json", _ADAPTER, _PIPELINE}
    if standard and not has_its_own and (is_model or files.keys() & _LOADED):
        yield Absence("config.json", f"{standard[0]} does not load without it")


def _by_folder(paths: Collection[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        folder, _, name = path.rpartition("/")
        found[folder].append(name)
    return found


def _is_vocabulary(name: str) -> bool:
    return name in _VOCABULARIES or any(
        suffix in _VOCABULARY_SUFFIXES for suffix in PurePosixPath(name).suffixes
    )


def _has_weights(files: Mapping[str, int]) -> bool:
    # Whatever else weights are called, they are large.
    paths = [*map(PurePosixPath, files)]
    return (
        bool(weight_formats(files))
        or any(path.suffix in _OTHER_WEIGHTS for path in paths)
        or any(size > SMALL for size in files.values())
    )


def _document(files: Collection[str], read: Read, path: str) -> dict[str, Any]:
    """A configuration file; one that is not there, or no JSON object, counts as an empty one."""
    if path in files:
        with suppress(OSError):
            document = json_in(read(path))
            if isinstance(document, dict):
                return document
    return {}
