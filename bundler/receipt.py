"""What an unpack installed, model by model, as values: a receipt is kept of it on the target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bundler.digest import Blob, Digest
from bundler.manifest import Snapshot
from bundler.relative import RelativePath
from bundler.sharing import SHARED_FROM
from bundler.spec import spec_of

Place = tuple[str, RelativePath]
"""A root, by what `Roots.kept_as` gives, and a path below it."""
Key = tuple[str | None, ...]
"""What `key_of` gives."""


@dataclass(frozen=True, slots=True)
class InstalledFile:
    """One file that stands as the bundle says. `root` is what `Roots.kept_as` gives."""

    root: str
    path: RelativePath
    blob: Blob
    mtime_ns: int
    """The file's time of change when it was known to hold the blob: another one means doubt."""
    found: bool
    """It stood there before bundler came."""

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.root, self.path


@dataclass(frozen=True, slots=True)
class InstalledPointer:
    """A link or a small text, by which files are found."""

    root: str
    path: RelativePath
    text: str | None
    """What it says; None where others may say something in it too."""
    before: str | None = None
    """What it said before bundler came; None if it was not there."""
    pending: bool = False
    """It was still to be moved when this was noted: whoever was killed then may have done it."""

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.root, self.path


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """One snapshot that was installed, as a manifest names it, and what stands for it where.

    A file may be in the lists of several models. `size` is in bytes, as of the snapshot.
    """

    source: str
    name: str
    layout: str
    kind: str | None
    aliases: tuple[str, ...]
    specs: tuple[str, ...]
    needs: tuple[str, ...]
    revision: str | None
    commit_hash: str | None
    size: int
    files: tuple[InstalledFile, ...] = ()
    links: tuple[InstalledPointer, ...] = ()
    texts: tuple[InstalledPointer, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that it answers to, the one asked for first."""
        return (self.name, *self.aliases)

    @property
    def spec(self) -> str:
        """The words that mean it."""
        return spec_of(self.source, self.name, self.revision)

    @property
    def is_pending(self) -> bool:
        """Whether it is not known of some ref or branch that it has been moved."""
        return any(pointer.pending for pointer in (*self.links, *self.texts))

    @property
    def places(self) -> Iterator[Place]:
        """All that stands for it."""
        yield from (file.place for file in self.files)
        yield from (pointer.place for pointer in (*self.links, *self.texts))

    def may_be_edited(self, file: InstalledFile) -> bool:
        """Whether a file of this model is there to be edited: a small one of a plain folder."""
        is_plain = file.root.startswith("/") and self.layout != "insightface"
        return is_plain and file.blob.size < SHARED_FROM

    def merged(self, earlier: InstalledModel | None) -> InstalledModel:
        """The same with what an earlier unpack of it put elsewhere."""
        if earlier is None:
            return self
        files = {file.place: file for file in (*earlier.files, *self.files)}
        links = {link.place: link for link in (*earlier.links, *self.links)}
        texts = {text.place: text for text in (*earlier.texts, *self.texts)}
        return replace(
            self,
            files=tuple(files.values()),
            links=tuple(links.values()),
            texts=tuple(texts.values()),
        )


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was installed of one bundle."""

    bundle: Digest
    models: tuple[InstalledModel, ...]

    def merged(self, earlier: Receipt | None) -> Receipt:
        """This receipt and what an earlier unpack of the same bundle installed."""
        models = {} if earlier is None else {key_of(model): model for model in earlier.models}
        for model in self.models:
            models[key_of(model)] = model.merged(models.get(key_of(model)))
        return Receipt(self.bundle, tuple(models.values()))


def key_of(model: InstalledModel | Snapshot) -> Key:
    """What tells a model from the others of its bundle."""
    return (
        model.source, model.kind, model.name, model.revision, model.commit_hash, model.layout
    )  # fmt: skip
