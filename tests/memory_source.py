"""A source whose models are in memory and that counts what is opened; bundles made from it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import bundler
from bundler.digest import Digest, Stream
from bundler.errors import UnavailableError
from bundler.origin import Origin
from bundler.remote import RemoteFile, RemoteSnapshot, Repositories
from bundler.web import Web

Files = Mapping[str, bytes]


class MemorySource:
    """Specs `hf:name[@revision]` for the models given; LFS-like files are those with weights."""

    scheme = "hf"

    def __init__(
        self,
        models: Mapping[str, Files],
        aliases: Mapping[str, str] | None = None,
        kind: str = "model",
    ) -> None:
        """`aliases`: from a name that may be asked for to the canonical one in `models`."""
        self._models = models
        self._aliases = aliases or {}
        self._kind = kind
        self.opened: list[str] = []

    def resolve(self, rest: str, hub: Repositories, web: Web) -> Iterator[RemoteSnapshot]:
        name, _, revision = rest.partition("@")
        canonical = self._aliases.get(name, name)
        if canonical not in self._models:
            raise UnavailableError(f"no model {name}")
        files = self._models[canonical]
        yield RemoteSnapshot(
            source=self.scheme,
            name=name,
            layout="hf-cache",
            files=tuple(self._file(path, content) for path, content in sorted(files.items())),
            kind=self._kind,
            aliases=() if canonical == name else (canonical,),
            revision=revision or "main",
            commit_hash=commit_hash(files),
            license="mit",
        )

    def _file(self, path: str, content: bytes) -> RemoteFile:
        digest = Digest.of(content)
        large = path.endswith((".safetensors", ".bin"))
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return RemoteFile(
            path=path,
            origin=Content(path, content, str(digest) if large else f"git:{git}", self.opened),
            size=len(content),
            digest=digest if large else None,
            git_sha1=None if large else git,
            etag=digest.hex if large else git,
        )


@dataclass(frozen=True, eq=False)
class Content(Origin):
    """What is in memory; `opened` gets its name when it is opened."""

    name: str
    content: bytes
    known_as: str
    opened: list[str] = field(default_factory=list)

    @property
    def identity(self) -> str:
        return self.known_as

    def open(self, start: int, /) -> Stream:
        self.opened.append(self.name)
        return io.BytesIO(self.content[start:])


def commit_hash(files: Files) -> str:
    """The commit hash that `MemorySource` gives to these files."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


def make_bundle(
    path: Path,
    models: Mapping[str, Files],
    *,
    asked: tuple[str, ...] = (),
    aliases: Mapping[str, str] | None = None,
    sign: bundler.PrivateKey | None = None,
    level: int | None = None,
    split_size: int | None = None,
) -> bundler.Packed:
    """Pack `asked` (by default all `models`) into a bundle at `path`."""
    return bundler.pack(
        asked or tuple(models),
        path,
        selection=bundler.Selection(all_files=True),
        store=path.parent / "store",
        sources=(MemorySource(models, aliases),),
        sign=sign,
        level=level,
        split_size=split_size,
    )
