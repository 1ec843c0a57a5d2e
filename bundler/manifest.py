"""The table of contents of a bundle, as values: FORMAT.md, "Manifest".

Laws: `Manifest.from_bytes(m.to_bytes()) == m`, and equal manifests have equal bytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from bundler.digest import SHA1, Blob, Digest
from bundler.documents import strict_json
from bundler.errors import FormatError, shown
from bundler.manifest_rules import check_extent, check_manifest
from bundler.relative import RelativePath

FORMAT_VERSION = 1
BUILDING_ON = 2
"""The version of a bundle that lacks blobs: a reader that knows only the first must refuse it."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a snapshot. `etag` is upstream's own name of the content, if it has one."""

    path: RelativePath
    blob: Blob
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class Omission:
    """A file of the repository that was left out. `size` is in bytes; `path` is only shown."""

    path: str
    size: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Code:
    """A file that can run as code when a library loads it, and what makes it run."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of one model at one commit hash, and what is known about it."""

    source: str
    name: str
    """As the user asked for it: caches are searched by this name."""
    layout: str
    files: tuple[FileEntry, ...]
    kind: str | None = None
    aliases: tuple[str, ...] = ()
    revision: str | None = None
    commit_hash: str | None = None
    license: str | None = None
    omitted: tuple[Omission, ...] = ()
    specs: tuple[str, ...] = ()
    """Other words that the user asked with: `timm:resnet18` for `timm/resnet18.a1_in1k`."""
    needs: tuple[str, ...] = ()
    """Specs of other snapshots in the bundle without which this one does not load."""
    code: tuple[Code, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that this snapshot answers to, the one asked for first."""
        return (self.name, *self.aliases)

    @property
    def rank(self) -> tuple[str, ...]:
        """By which it is found among other snapshots, and where: their canonical order."""
        return (self.source, self.kind or "", self.name, self.revision or "", self.layout)

    @property
    def size(self) -> int:
        """Bytes of all files, equal ones counted each time."""
        return sum(entry.blob.size for entry in self.files)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle holds."""

    snapshots: tuple[Snapshot, ...]
    absent: tuple[Digest, ...] = ()
    """Blobs that the bundle does not bring: they must be on the target. In ascending order."""
    builds_on: tuple[Digest, ...] = ()
    """The ids of bundles that have brought those, as far as the packing side knew; ascending."""

    @property
    def format_version(self) -> int:
        """The lowest that says it all: one that brings everything is as it always was."""
        return BUILDING_ON if self.absent else FORMAT_VERSION

    @classmethod
    def of(cls, snapshots: Iterable[Snapshot]) -> Manifest:
        """A manifest of `snapshots` in their canonical order, however they were asked for."""
        in_order = (
            replace(
                snapshot,
                files=tuple(sorted(snapshot.files, key=lambda entry: str(entry.path))),
                omitted=tuple(sorted(snapshot.omitted, key=lambda item: item.path)),
                specs=tuple(sorted(snapshot.specs)),
                needs=tuple(sorted(snapshot.needs)),
                code=tuple(sorted(snapshot.code, key=lambda item: item.path)),
            )
            for snapshot in snapshots
        )
        return cls(tuple(sorted(in_order, key=lambda snapshot: snapshot.rank)))

    def contents(self) -> Iterator[tuple[Snapshot, FileEntry]]:
        """Every blob once, as the file that mentions it first."""
        seen: set[Digest] = set()
        for snapshot in self.snapshots:
            for entry in snapshot.files:
                if entry.blob.digest not in seen:
                    seen.add(entry.blob.digest)
                    yield snapshot, entry

    def git_names(self) -> dict[Digest, str]:
        """The git blob ids that etags state, by digest."""
        return {
            entry.blob.digest: entry.etag
            for snapshot in self.snapshots
            for entry in snapshot.files
            if entry.etag is not None and SHA1.fullmatch(entry.etag)
        }

    def blobs(self) -> Iterator[Blob]:
        """Every blob once, in order of first mention."""
        return (entry.blob for _, entry in self.contents())

    def carried(self) -> Iterator[tuple[Snapshot, FileEntry]]:
        """Those of `contents` that the bundle brings."""
        absent = frozenset(self.absent)
        return (content for content in self.contents() if content[1].blob.digest not in absent)

    def lacking(self) -> Iterator[tuple[Snapshot, FileEntry]]:
        """The others."""
        absent = frozenset(self.absent)
        return (content for content in self.contents() if content[1].blob.digest in absent)

    def without(self, blobs: Container[Blob], builds_on: Iterable[Digest] = ()) -> Manifest:
        """The manifest of a bundle of the same snapshots that brings none of `blobs`."""
        absent = sorted(blob.digest for blob in self.blobs() if blob in blobs)
        sources = sorted(builds_on) if absent else ()
        return replace(self, absent=tuple(absent), builds_on=tuple(sources))

    def renamed(self, names: Mapping[Digest, Digest]) -> Manifest:
        """The same with other digests in place of those that are among `names`."""

        def entry(old: FileEntry) -> FileEntry:
            digest = names.get(old.blob.digest, old.blob.digest)
            return replace(old, blob=Blob(digest, old.blob.size))

        snapshots = (replace(s, files=tuple(map(entry, s.files))) for s in self.snapshots)
        return replace(self, snapshots=tuple(snapshots))

    def to_bytes(self) -> bytes:
        """Canonical JSON: UTF-8, sorted keys, no white space, absent instead of null or empty."""
        document = _without_nothing(
            {
                "format_version": self.format_version,
                "snapshots": self.snapshots,
                "absent": tuple(map(str, self.absent)),
                "builds_on": tuple(map(str, self.builds_on)),
            }
        )
        content = io.BytesIO()
        content.writelines(part.encode() for part in _parts(document))
        return content.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Manifest:
        """Read a manifest. Raises FormatError, naming the field, for anything that is not one."""
        check_extent(content)
        try:
            document = strict_json(content.decode(), _entry_or_record)
        except (ValueError, RecursionError) as error:
            said = shown(error, 200).strip("'\"")
            raise FormatError(f"the manifest of this bundle is not valid JSON: {said}") from None
        try:
            version = _get(document, "format_version", int)
            if version not in (FORMAT_VERSION, BUILDING_ON):
                number = shown(version).strip("'")
                raise FormatError(
                    f"this bundle has format version {number}, and this bundler reads versions "
                    f"{FORMAT_VERSION} and {BUILDING_ON}: use a newer bundler"
                )
            manifest = cls(tuple(map(_snapshot, _optional(document, "snapshots", list) or [])))
            if version == BUILDING_ON:
                absent, builds_on = _digests(document, "absent"), _digests(document, "builds_on")
                if not absent:
                    raise ValueError("it lacks nothing, and says that it does")
                manifest = replace(manifest, absent=absent, builds_on=builds_on)
        except ValueError as error:
            raise FormatError(f"the manifest of this bundle is refused: {error}") from None
        manifest.check()
        return manifest

    def check(self) -> None:
        """Raise FormatError, naming the field, if it says what none may say, and none can be read.

        The extent of its text is looked at by `check_extent`.
        """
        check_manifest(self)


_AT_ONCE = 1 << 10
"""Items of a list that are made to text together: what that takes is many times the text."""


def _parts(record: dict[str, Any]) -> Iterator[str]:
    """The canonical JSON of a record, which may be very long."""
    for number, (key, value) in enumerate(sorted(record.items())):
        yield f'{"," if number else "{"}"{key}":'
        if key == "snapshots":
            for index, snapshot in enumerate(value):
                yield "," if index else "["
                yield from _parts(_to_json(snapshot))
            yield "]"
        elif isinstance(value, tuple):
            for start in range(0, len(value), _AT_ONCE):
                yield "," if start else "["
                yield _canonical(value[start : start + _AT_ONCE])[1:-1]
            yield "]"
        else:
            yield _canonical(value)
    yield "}"


def _to_json(value: object) -> dict[str, Any]:
    """The record of a snapshot, or of what is in it; one at a time, as it is written."""
    if isinstance(value, FileEntry):
        digest = str(value.blob.digest)
        record = {"path": value.path, "size": value.blob.size, "digest": digest, "etag": value.etag}
    elif isinstance(value, (Snapshot, Omission, Code)):
        record = {name: getattr(value, name) for name in value.__slots__}
    else:
        raise TypeError(type(value))
    return _without_nothing(record)


_canonical = json.JSONEncoder(
    default=_to_json,
    ensure_ascii=False,
    sort_keys=True,
    separators=(",", ":"),
    allow_nan=False,
).encode


def _without_nothing(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if value not in (None, ())}


def _entry_or_record(record: dict[str, Any]) -> object:
    """A file instead of its record: of a hundred thousand, the records would take most memory.

    What is not plainly one stays as it is, to be refused where it is known what it stands in.
    """
    if "digest" in record and len(record) == 3 + ("etag" in record):
        try:
            return _file_entry(record)
        except ValueError:
            pass
    return record


def _snapshot(record: object) -> Snapshot:
    name = _get(record, "name", str)
    try:
        return Snapshot(
            source=_get(record, "source", str),
            name=name,
            layout=_get(record, "layout", str),
            files=tuple(
                item if isinstance(item, FileEntry) else _file_entry(item)
                for item in _optional(record, "files", list) or []
            ),
            kind=_optional(record, "kind", str),
            aliases=_texts(record, "aliases"),
            revision=_optional(record, "revision", str),
            commit_hash=_optional(record, "commit_hash", str),
            license=_optional(record, "license", str),
            omitted=tuple(
                Omission(
                    _get(item, "path", str),
                    _optional(item, "size", int),
                    _get(item, "reason", str),
                )
                for item in _optional(record, "omitted", list) or []
            ),
            specs=_texts(record, "specs"),
            needs=_texts(record, "needs"),
            code=tuple(
                Code(_get(item, "path", str), _get(item, "reason", str))
                for item in _optional(record, "code", list) or []
            ),
        )
    except ValueError as error:
        raise ValueError(f"in {shown(name)}: {error}") from None


def _file_entry(record: object) -> FileEntry:
    blob = Blob(Digest.parse(_get(record, "digest", str)), _get(record, "size", int))
    return FileEntry(RelativePath(_get(record, "path", str)), blob, _optional(record, "etag", str))


def _get(record: object, key: str, kind: type[T]) -> T:
    value = _optional(record, key, kind)
    if value is None:
        raise ValueError(f"{key!r} is missing")
    return value


def _optional(record: object, key: str, kind: type[T]) -> T | None:
    if not isinstance(record, dict):
        raise ValueError(f"a {type(record).__name__} where an object with {key!r} belongs")
    value = record.get(key)
    if value is None or type(value) is kind:  # Not isinstance, for which True is an integer.
        return value
    raise ValueError(f"{key!r} is a {type(value).__name__}, not a {kind.__name__}")


def _texts(record: object, key: str) -> tuple[str, ...]:
    texts = _optional(record, key, list) or []
    if not all(isinstance(item, str) for item in texts):
        raise ValueError(f"{key!r} holds something else than texts")
    return tuple(texts)


def _digests(record: object, key: str) -> tuple[Digest, ...]:
    return tuple(Digest.parse(text) for text in _texts(record, key))
