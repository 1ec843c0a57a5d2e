"""Repositories of the Hugging Face Hub: models, datasets and spaces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bundler.remote import RemoteSnapshot, Repositories
from bundler.spec import name_and_revision
from bundler.web import Web


@dataclass(frozen=True, slots=True)
class HuggingFace:
    """Specs `scheme:name[@revision]`: one repository of one kind, as it is on the Hub."""

    scheme: str
    kind: str

    def resolve(self, rest: str, hub: Repositories, web: Web) -> Iterator[RemoteSnapshot]:
        name, revision = name_and_revision(rest)
        yield hub.snapshot(self.scheme, self.kind, name, revision)
