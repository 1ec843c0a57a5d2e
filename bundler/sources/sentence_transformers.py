"""sentence-transformers' models, by the names that `SentenceTransformer` takes."""

from __future__ import annotations

from collections.abc import Iterator

from bundler.completeness import MODULES, part_configs
from bundler.download import small_content
from bundler.errors import UnavailableError
from bundler.lookups import sentence_transformers_lookup
from bundler.patience import Patience
from bundler.remote import ModelFile, RemoteSnapshot, Repositories
from bundler.web import Web


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
    if MODULES not in files:
        raise UnavailableError(
            f"{snapshot.name} has no {MODULES}: sentence-transformers would load it as another "
            "model than its author made; pack it by its id alone if it is no such model"
        )
    try:
        configs = part_configs(small_content(ModelFile(snapshot.name, files[MODULES]), patience))
    except ValueError:
        raise UnavailableError(f"{MODULES} of {snapshot.name} is not what it should be") from None
    for config in configs:
        if config not in files:
            raise UnavailableError(
                f"{snapshot.name} has no {config}: its part cannot be made without that"
            )
