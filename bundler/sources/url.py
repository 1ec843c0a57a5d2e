"""A file at an address."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bundler.checkpoint import checkpoint
from bundler.lookups import url_lookup
from bundler.remote import RemoteSnapshot, Repositories
from bundler.web import Web


@dataclass(frozen=True, slots=True)
class Url:
    """Specs `https://host/file`, with `#sha256=…` behind if the content is to be that."""

    scheme: str

    def resolve(self, rest: str, hub: Repositories, web: Web) -> Iterator[RemoteSnapshot]:
        lookup = url_lookup(f"{self.scheme}:{rest}")
        yield checkpoint(lookup.url, web, digest=lookup.digest)
