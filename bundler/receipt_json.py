"""A receipt as JSON, written and read file by file: there may be a hundred thousand."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from bundler.digest import Blob, Digest
from bundler.names import MAX_DEPTH, relative_path
from bundler.receipt import InstalledFile, InstalledModel, InstalledPointer, Receipt

_VERSION = 2
_DEEPEST = 2 * MAX_DEPTH
"""Components of a path: a name, in the layout `flat`, and a path below it."""

T = TypeVar("T")


def to_json(receipt: Receipt) -> Iterator[str]:
    """The receipt, a piece at a time: of many files, the whole text would take much memory."""
    yield f'{{"receipt_version": {_VERSION}, "bundle": "{receipt.bundle}", "models": ['
    for number, model in enumerate(receipt.models):
        named = {
            "source": model.source,
            "name": model.name,
            "layout": model.layout,
            "kind": model.kind,
            "aliases": model.aliases,
            "specs": model.specs,
            "needs": model.needs,
            "revision": model.revision,
            "commit_hash": model.commit_hash,
            "size": model.size,
        }
        yield f"{', ' if number else ''}{json.dumps(named)[:-1]}"
        yield from _list_to_json("files", map(_file_to_json, model.files))
        yield from _list_to_json("links", map(_pointer_to_json, model.links))
        yield from _list_to_json("texts", map(_pointer_to_json, model.texts))
        yield "}"
    yield "]}\n"


def _list_to_json(key: str, items: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The rest of an object, from the comma before a key on that has a list."""
    yield f', "{key}": ['
    for number, item in enumerate(items):
        yield f"{', ' if number else ''}{json.dumps(item)}"
    yield "]"


def _file_to_json(file: InstalledFile) -> dict[str, Any]:
    return {
        "root": file.root,
        "path": file.path,
        "digest": str(file.blob.digest),
        "size": file.blob.size,
        "mtime_ns": file.mtime_ns,
        "found": file.found,
    }


def _pointer_to_json(pointer: InstalledPointer) -> dict[str, Any]:
    return {
        "root": pointer.root,
        "path": pointer.path,
        "text": pointer.text,
        "before": pointer.before,
        "pending": pointer.pending,
    }


def read_json(text: str) -> Receipt | None:
    """The receipt that a text is; None if it is none, or of another version."""
    try:
        document = json.loads(text, object_hook=_part)
        if document["receipt_version"] != _VERSION:
            return None
        models = tuple(_model(record) for record in document["models"])
        # Merged, since somebody may have put two into one, and a model is in a receipt once.
        return Receipt(Digest.parse(document["bundle"]), models).merged(None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None


def _part(record: dict[str, Any]) -> object:
    """What is to be in place of an object: the records of many files would take much memory."""
    if "mtime_ns" in record:
        return _file(record)
    return _pointer(record) if "text" in record else record


def _root(value: Any) -> str:
    """What `Roots.kept_as` gives; one text for all that are below it."""
    if value not in ("hub", "torch", "datasets") and not _text(value).startswith("/"):
        raise ValueError
    return sys.intern(value)


def _model(record: Any) -> InstalledModel:
    return InstalledModel(
        source=_text(record["source"]),
        name=_text(record["name"]),
        layout=_text(record["layout"]),
        kind=_optional(record["kind"]),
        aliases=tuple(_text(alias) for alias in record["aliases"]),
        specs=tuple(_text(spec) for spec in record["specs"]),
        needs=tuple(_text(need) for need in record["needs"]),
        revision=_optional(record["revision"]),
        commit_hash=_optional(record["commit_hash"]),
        size=_size(record["size"]),
        files=_all_of(InstalledFile, record["files"]),
        links=_all_of(InstalledPointer, record["links"]),
        texts=_all_of(InstalledPointer, record["texts"]),
    )


def _all_of(kind: type[T], values: Any) -> tuple[T, ...]:
    if not all(isinstance(value, kind) for value in values):
        raise TypeError
    return tuple(values)


def _file(record: dict[str, Any]) -> InstalledFile:
    return InstalledFile(
        _root(record["root"]),
        relative_path(record["path"], _DEEPEST),
        Blob(Digest.parse(record["digest"]), _size(record["size"])),
        int(record["mtime_ns"]),
        bool(record["found"]),
    )


def _pointer(record: dict[str, Any]) -> InstalledPointer:
    return InstalledPointer(
        _root(record["root"]),
        relative_path(record["path"], _DEEPEST),
        _optional(record["text"]),
        _optional(record["before"]),
        bool(record.get("pending")),
    )


def _size(value: Any) -> int:
    if int(value) < 0:
        raise ValueError
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _optional(value: Any) -> str | None:
    return None if value is None else _text(value)
