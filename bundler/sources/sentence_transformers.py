"""sentence-transformers' models, by the names that `SentenceTransformer` takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePosixPath

from bundler.download import small_content
from bundler.errors import UnavailableError
from bundler.lookups import sentence_transformers_lookup
from bundler.patience import Patience
from bundler.remote import RemoteSnapshot, Repositories
from bundler.web import Web

_MODULES = "modules.json"


class SentenceTransformers:
    """Specs `sentence-transformers:name`, of that organisation if `name` names none."""

    scheme = "sentence-transformers"

    def resolve(self, rest: str, hub: Repositories, web: Web) -> Iterator[RemoteSnapshot]:
        lookup = sentence_transformers_lookup(rest)
        snapshot = hub.snapshot(
            "hf", lookup.kind, lookup.name, lookup.revision, specs=(f"{self.scheme}:{rest}",)
        )
        _check_parts(snapshot, web.patience)
        yield snapshot


def _check_parts(snapshot: RemoteSnapshot, patience: Patience) -> None:
    """Raise UnavailableError if the model would load, without an error, as another one.

    Without modules.json sentence_transformers/base/model.py builds a model of its own: mean
    pooling, no normalization, other embeddings.
    """
    files = {file.path: file for file in snapshot.files}
    if _MODULES not in files:
        raise UnavailableError(
            f"{snapshot.name} has no {_MODULES}: sentence-transformers would load it as another "
            "model than its author made; pack it by its id alone if it is no such model"
        )
    try:
        modules: list[dict[str, object]] = json.loads(
            small_content(files[_MODULES], f"{_MODULES} of {snapshot.name}", patience)
        )
        parts = [(str(module["path"]), str(module["type"])) for module in modules]
        if not parts:
            raise ValueError("no parts")
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UnavailableError(f"{_MODULES} of {snapshot.name} is not what it should be") from None
    for folder, kind in parts:
        config = str(PurePosixPath(folder, "config.json"))
        if kind.endswith(".Pooling") and config not in files:
            raise UnavailableError(
                f"{snapshot.name} has no {config}: sentence-transformers cannot pool without it"
            )
