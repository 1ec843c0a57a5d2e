"""Where models come from: one module for each kind of place. Sources do not know each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from bundler.remote import RemoteSnapshot, Repositories
from bundler.sources.huggingface import HuggingFace
from bundler.sources.insightface import InsightFace
from bundler.sources.local import Local
from bundler.sources.sentence_transformers import SentenceTransformers
from bundler.sources.timm import Timm
from bundler.sources.torchhub import TorchHub
from bundler.sources.torchvision import Torchvision
from bundler.sources.url import Url
from bundler.spec import Spec, unknown_scheme
from bundler.web import Web


class Source(Protocol):
    """A kind of place, known by the scheme of its specs."""

    @property
    def scheme(self) -> str: ...

    def resolve(self, rest: str, hub: Repositories, web: Web) -> Iterator[RemoteSnapshot]:
        """What `scheme:rest` stands for, from metadata alone: no weights are read.

        Several snapshots if several things must be there, such as code and checkpoint. `web` is for
        whatever is not on the Hub. Raises RequestError (no spec of this kind) and UnavailableError
        (no such model, no access, no network).
        """


SOURCES: tuple[Source, ...] = (
    HuggingFace("hf", "model"),
    HuggingFace("dataset", "dataset"),
    HuggingFace("space", "space"),
    Timm(),
    SentenceTransformers(),
    Torchvision(),
    TorchHub(),
    InsightFace(),
    Url("https"),
    Url("http"),
    Local(),
)


def resolve(
    spec: Spec, hub: Repositories, web: Web, sources: Sequence[Source] = SOURCES
) -> list[RemoteSnapshot]:
    """Everything that `spec` stands for. Raises as `Source.resolve` does."""
    for source in sources:
        if source.scheme == spec.scheme:
            return list(source.resolve(spec.rest, hub, web))
    raise unknown_scheme(spec, [source.scheme for source in sources])
