"""timm's models, by the names that `timm.create_model` takes: the weights behind each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from bundler.checkpoint import checkpoint
from bundler.errors import RequestError, UnavailableError
from bundler.lookups import Checkpoint, Repository, timm_lookup
from bundler.remote import RemoteSnapshot, Repositories
from bundler.selection import weight_formats
from bundler.spec import name_and_revision
from bundler.web import Web


class Timm:
    """Specs `timm:architecture`, `timm:architecture.tag`, either with `@revision`."""

    scheme = "timm"

    def resolve(self, rest: str, hub: Repositories, web: Web) -> Iterator[RemoteSnapshot]:
        lookup = _lookup(rest)
        if isinstance(lookup, Checkpoint):
            yield checkpoint(lookup.url, web, specs=(f"timm:{rest}",))
            return
        name, place = name_and_revision(rest)[0], lookup.name
        snapshot = hub.snapshot("hf", "model", place, lookup.revision, specs=(f"timm:{rest}",))
        paths = {file.path for file in snapshot.files}
        if not weight_formats(paths):
            raise UnavailableError(f"{place} has no weights: timm could not load {name} from it")
        if "config.json" not in paths:
            note = f'{place} has no config.json: it loads as "{name}", not as "hf-hub:{place}"'
            snapshot = replace(snapshot, notes=(note,))
        yield snapshot


def _lookup(rest: str) -> Repository | Checkpoint:
    """Where the weights are: as the catalogue has it, else the timm that is installed here."""
    try:
        return timm_lookup(rest)
    except RequestError:
        place = _asked_of_timm(name_and_revision(rest)[0])
        if place is None:
            raise
        return timm_lookup(rest, place)


def _asked_of_timm(name: str) -> str | None:
    """What the timm that is installed here, perhaps a newer one, says of `name`."""
    if find_spec("timm") is None:
        return None
    try:
        from timm.models import get_pretrained_cfg

        config: Any = get_pretrained_cfg(name)
    except Exception:
        return None  # Whatever is wrong with that installation, its answer is not needed.
    if config is None:
        return None
    return config.hf_hub_id or config.url or None
