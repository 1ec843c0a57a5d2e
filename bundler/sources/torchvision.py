"""torchvision's models, by the names of their constructors: all that those would download."""

from __future__ import annotations

from collections.abc import Iterator

from bundler.checkpoint import checkpoint
from bundler.lookups import torchvision_lookups
from bundler.remote import RemoteSnapshot, Repositories
from bundler.web import Web


class Torchvision:
    """Specs `torchvision:model` and `torchvision:model@WEIGHTS`."""

    scheme = "torchvision"

    def resolve(self, rest: str, hub: Repositories, web: Web) -> Iterator[RemoteSnapshot]:
        for lookup in torchvision_lookups(rest):
            yield checkpoint(lookup.url, web, specs=(f"{self.scheme}:{rest}",))
