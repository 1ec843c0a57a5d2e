"""Where models come from: one module for each kind of place. Sources do not know each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from bundler.errors import RequestError
from bundler.hub import Hub
from bundler.remote import RemoteSnapshot
from bundler.sources.huggingface import HuggingFace
from bundler.spec import Spec


class Source(Protocol):
    """A kind of place, known by the scheme of its specs."""

    @property
    def scheme(self) -> str: ...

    def resolve(self, rest: str, hub: Hub) -> Iterator[RemoteSnapshot]:
        """What `scheme:rest` stands for, from metadata alone: no content is read.

        Raises RequestError (no spec of this kind) and UnavailableError (no such model, no access,
        no network).
        """


SOURCES: tuple[Source, ...] = (
    HuggingFace("hf", "model"),
    HuggingFace("dataset", "dataset"),
    HuggingFace("space", "space"),
)


def resolve(spec: Spec, hub: Hub, sources: Sequence[Source] = SOURCES) -> list[RemoteSnapshot]:
    """Everything that `spec` stands for. Raises as `Source.resolve` does."""
    for source in sources:
        if source.scheme == spec.scheme:
            return list(source.resolve(spec.rest, hub))
    known = ", ".join(f"{source.scheme}:" for source in sources)
    raise RequestError(f"{spec.scheme}: is no kind of model that bundler knows (it knows {known})")
