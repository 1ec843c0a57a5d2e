"""timm's models, by the names that `timm.create_model` takes: the weights behind each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import Any

from bundler.catalogues import catalogue, nearest
from bundler.checkpoint import checkpoint
from bundler.errors import RequestError, UnavailableError
from bundler.remote import RemoteSnapshot, Repositories
from bundler.selection import weight_formats
from bundler.spec import name_and_revision
from bundler.web import Web


class Timm:
    """Specs `timm:architecture`, `timm:architecture.tag`, either with `@revision`."""

    scheme = "timm"

    def resolve(self, rest: str, hub: Repositories, web: Web) -> Iterator[RemoteSnapshot]:
        name, revision = name_and_revision(rest)
        place = _place(name)
        if place.startswith("https://"):
            if revision is not None:
                raise RequestError(f"{name} is one file at an address, which has no revisions")
            yield checkpoint(place, web, specs=(f"timm:{rest}",))
            return
        snapshot = hub.snapshot("hf", "model", place, revision, specs=(f"timm:{rest}",))
        paths = {file.path for file in snapshot.files}
        if not weight_formats(map(PurePosixPath, paths)):
            raise UnavailableError(f"{place} has no weights: timm could not load {name} from it")
        if "config.json" not in paths:
            note = f'{place} has no config.json: it loads as "{name}", not as "hf-hub:{place}"'
            snapshot = replace(snapshot, notes=(note,))
        yield snapshot


def _place(name: str) -> str:
    """Where the weights of `name` are: a Hub id, or an address. Raises RequestError."""
    known = catalogue("timm")
    name = known["renamed"].get(name, name)
    architecture, _, tag = name.partition(".")
    tags = known["architectures"].get(architecture, [])
    if tags and not tag:
        tag = tags[0]
    if tag in tags:
        full = f"{architecture}.{tag}" if tag else architecture
        url: str | None = known["urls"].get(full)
        return url or str(known["hub"].get(full, f"timm/{full}"))
    place = _asked_of_timm(name)
    if place is not None:
        return place
    if tags:
        others = [f"{architecture}.{tag}" for tag in tags]
        raise RequestError(f"timm has no weights {name}: {nearest(name, others)}")
    raise RequestError(f"timm has no model {name}: {nearest(name, known['architectures'])}")


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
