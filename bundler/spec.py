"""What the user types to name a model."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Protocol

from bundler.catalogues import nearest
from bundler.errors import RequestError

_SCHEME = re.compile(r"([a-z][a-z0-9-]*):(.*)", re.DOTALL)
DEFAULT_SCHEME = "hf"


@dataclass(frozen=True, slots=True)
class Spec:
    """`scheme:rest`, or a bare Hugging Face id. What `rest` means is the source's business."""

    scheme: str
    rest: str

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Read a spec. Raises RequestError for one that cannot be any."""
        match = _SCHEME.fullmatch(text)
        scheme, rest = match.groups() if match else (DEFAULT_SCHEME, text)
        if not rest or not rest.isprintable() or rest != rest.strip():
            raise RequestError(f"{text!r} is not a model: write org/name, or scheme:rest")
        if "," in rest and scheme not in ("http", "https", "file"):
            raise RequestError(f"{text!r} is not one model: separate several by spaces")
        return cls(scheme, rest)

    def __str__(self) -> str:
        return f"{self.scheme}:{self.rest}"

    @property
    def told(self) -> Spec:
        """The spec as bundles have it: without what is only of use, or of interest, where it is.

        An address loses its query, which may hold a key, and its fragment; a path its folders.
        """
        if self.scheme in ("http", "https"):
            return Spec(self.scheme, re.split("[?#]", self.rest)[0])
        if self.scheme == "file":
            return Spec(self.scheme, PurePath(self.rest).name)
        return self


class Named(Protocol):
    """What a manifest or a receipt says of the names of a snapshot."""

    @property
    def source(self) -> str: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def specs(self) -> tuple[str, ...]: ...

    @property
    def revision(self) -> str | None: ...

    @property
    def commit_hash(self) -> str | None: ...


def words_for(snapshot: Named) -> Iterator[str]:
    """Every spec, as `str` gives it, that asks for `snapshot`: with its revision or without."""
    yield from snapshot.specs
    for name in snapshot.names:
        spec = full_spec(snapshot.source, name)
        yield spec
        yield f"{spec}@{snapshot.revision}"
        yield f"{spec}@{snapshot.commit_hash}"


class Naming:
    """Which of some models the words of users mean, by their numbers."""

    def __init__(self, models: Sequence[Named]) -> None:
        self._by_spec: dict[str, set[int]] = defaultdict(set)
        self._by_name: dict[str, set[int]] = defaultdict(set)
        for number, model in enumerate(models):
            for spec in words_for(model):
                self._by_spec[spec].add(number)
            for name in model.names:
                self._by_name[name].add(number)

    def asked(self, text: str) -> set[int]:
        """Those that a spec asks for. Raises RequestError for what is none."""
        spec = Spec.parse(text)
        return self._by_spec.get(str(spec), set()) | self._by_spec.get(str(spec.told), set())

    def called(self, text: str) -> set[int]:
        """Those that have this name, of whatever kind they are."""
        return self._by_name.get(text, set())


def full_spec(source: str, name: str) -> str:
    """The spec of a name with its scheme; an address is its own spec, scheme and all."""
    return name if "://" in name else f"{source}:{name}"


def spec_of(source: str, name: str, revision: str | None) -> str:
    """The words that mean the snapshot of these, as short as they can be."""
    text = name if source == DEFAULT_SCHEME else full_spec(source, name)
    return text if revision in (None, "main") else f"{text}@{revision}"


def unknown_scheme(spec: Spec, known: Collection[str]) -> RequestError:
    """What to raise for a spec of none of the kinds that are `known`."""
    kinds = ", ".join(f"{scheme}:" for scheme in known)
    return RequestError(
        f"{spec.scheme}: is no kind of model that bundler knows ({kinds}); "
        f"{nearest(spec.scheme, known)}"
    )


def name_and_revision(rest: str) -> tuple[str, str | None]:
    """The two parts of `name[@revision]`. Raises RequestError if one of them is empty."""
    name, at, revision = rest.partition("@")
    if not name or (at and not revision):
        raise RequestError(f"{rest!r} is not of the form org/name or org/name@revision")
    return name, revision or None
