"""Repositories of the Hugging Face Hub: models, datasets and spaces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bundler.download import Web
from bundler.errors import RequestError
from bundler.hub import Hub
from bundler.remote import RemoteSnapshot


@dataclass(frozen=True, slots=True)
class HuggingFace:
    """Specs `scheme:name[@revision]`: one repository of one kind, as it is on the Hub."""

    scheme: str
    kind: str

    def resolve(self, rest: str, hub: Hub, web: Web) -> Iterator[RemoteSnapshot]:
        name, at, revision = rest.partition("@")
        if not name or (at and not revision):
            raise RequestError(f"{rest!r} is not of the form org/name or org/name@revision")
        yield hub.snapshot(self.scheme, self.kind, name, revision or None)
