"""A file at an address."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bundler.checkpoint import checkpoint
from bundler.digest import Digest
from bundler.errors import RequestError
from bundler.remote import RemoteSnapshot, Repositories
from bundler.web import Web


@dataclass(frozen=True, slots=True)
class Url:
    """Specs `https://host/file`, with `#sha256=…` behind if the content is to be that."""

    scheme: str

    def resolve(self, rest: str, hub: Repositories, web: Web) -> Iterator[RemoteSnapshot]:
        address, _, said = rest.partition("#")
        digest = None
        if said:
            try:
                digest = Digest.parse(said.replace("sha256=", "sha256:", 1))
            except ValueError as error:
                raise RequestError(f"what stands behind # is no sha256=…: {error}") from None
        yield checkpoint(f"{self.scheme}:{address}", web, digest=digest)
