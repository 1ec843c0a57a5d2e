"""What the user types to name a model."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bundler.errors import RequestError
from bundler.manifest import Snapshot

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
        return cls(scheme, rest)

    def __str__(self) -> str:
        return f"{self.scheme}:{self.rest}"

    def names(self, snapshot: Snapshot) -> bool:
        """Whether this asks for `snapshot`: by any of its names, with or without revision."""
        if str(self) in snapshot.specs:
            return True
        return self.scheme == snapshot.source and any(
            self.rest in (name, f"{name}@{snapshot.revision}", f"{name}@{snapshot.commit_hash}")
            or str(self) == name
            for name in snapshot.names
        )
