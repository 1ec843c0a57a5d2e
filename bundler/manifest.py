"""The table of contents of a bundle, as values: FORMAT.md, "Manifest".

Laws: `Manifest.from_bytes(m.to_bytes()) == m`, and equal manifests have equal bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

from bundler.digest import SHA1, SHA256, Blob, Digest
from bundler.documents import strict_json
from bundler.errors import FormatError, shown
from bundler.names import MAX_TEXT_LENGTH, UNPRINTABLE, folders_above, relative_path
from bundler.relative import RelativePath

FORMAT_VERSION = 1
BUILDING_ON = 2
"""The version of a bundle that lacks blobs: a reader that knows only the first must refuse it."""
MAX_MANIFEST_SIZE = 32 << 20
"""Bytes; a larger manifest is refused before it is read (about 120,000 files)."""
MAX_MANIFEST_COMMAS = 1 << 20
"""A manifest with more is refused before it is parsed: values cost many times their text."""
MAX_MANIFEST_BRACKETS = 1 << 20
"""Opening ones of both kinds, counted with the commas: empty lists take thirty times their text."""
MAX_SLASHES = 1 << 20
"""Counted with the commas: paths have them, and each folder of a path takes memory."""
MAX_FOLDERS = 1 << 17
"""Of all paths, each snapshot's by themselves: on a disk each takes a block, and no size tells."""
MAX_SNAPSHOTS = 1 << 13
"""Each is looked for in a dozen places."""
MAX_ALIASES = 16
MAX_BUILDS_ON = 256
"""Bundles that a manifest names as those which brought what it lacks."""
MAX_NAMED_FILES = 1 << 19
"""Files, each counted for every name of its snapshot: without links all of them are written."""
MAX_BLOB_SIZE = 2**53 - 1
"""Bytes; the largest integer that every JSON reader keeps exact."""
_ETAG = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.-]{0,199}")

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
        absent = sorted((b.digest for b in self.blobs() if b in blobs), key=str)
        sources = sorted(builds_on, key=str) if absent else ()
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
                "snapshots": [_snapshot_to_json(snapshot) for snapshot in self.snapshots],
                "absent": [str(digest) for digest in self.absent],
                "builds_on": [str(digest) for digest in self.builds_on],
            }
        )
        text = json.dumps(
            document, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
        )
        return text.encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Manifest:
        """Read a manifest. Raises FormatError, naming the field, for anything that is not one."""
        if (
            content.count(b",") > MAX_MANIFEST_COMMAS
            or content.count(b"[") + content.count(b"{") > MAX_MANIFEST_BRACKETS
        ):
            raise FormatError(
                f"the manifest of this bundle has more than {MAX_MANIFEST_COMMAS:,} values"
            )
        slashes = sum(map(content.count, (b"/", rb"\u002f", rb"\u002F")))
        if slashes > MAX_SLASHES:
            raise FormatError(f"the manifest of this bundle has more than {MAX_SLASHES:,} slashes")
        try:
            document = strict_json(content.decode())
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
            records = _get(document, "snapshots", list)
            if len(records) > MAX_SNAPSHOTS:
                raise ValueError(f"more than {MAX_SNAPSHOTS:,} models")
            snapshots = tuple(_snapshot(item) for item in records)
            if not snapshots:
                raise ValueError("it names no models")
            manifest = cls(snapshots)
            if version == BUILDING_ON:
                manifest = cls(
                    snapshots, _digests(document, "absent"), _digests(document, "builds_on")
                )
                _check_absent(manifest)
            _check_extent(manifest, slashes)
            _check_blobs_agree(manifest)
        except ValueError as error:
            raise FormatError(f"the manifest of this bundle is refused: {error}") from None
        return manifest


def _snapshot_to_json(snapshot: Snapshot) -> dict[str, Any]:
    record = {
        "source": snapshot.source,
        "kind": snapshot.kind,
        "name": snapshot.name,
        "aliases": list(snapshot.aliases),
        "revision": snapshot.revision,
        "commit_hash": snapshot.commit_hash,
        "layout": snapshot.layout,
        "license": snapshot.license,
        "files": [
            _without_nothing(
                {
                    "path": str(entry.path),
                    "size": entry.blob.size,
                    "digest": str(entry.blob.digest),
                    "etag": entry.etag,
                }
            )
            for entry in snapshot.files
        ],
        "omitted": [
            _without_nothing({"path": item.path, "size": item.size, "reason": item.reason})
            for item in snapshot.omitted
        ],
        "specs": list(snapshot.specs),
        "needs": list(snapshot.needs),
        "code": [{"path": item.path, "reason": item.reason} for item in snapshot.code],
    }
    return _without_nothing(record)


def _without_nothing(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if value is not None and value != []}


def _snapshot(record: object) -> Snapshot:
    name = _text(record, "name")
    try:
        files = tuple(_file_entry(item) for item in _drained(_get(record, "files", list)))
        _check_paths_agree(files)
        aliases = _texts(record, "aliases")
        if len(aliases) > MAX_ALIASES:
            raise ValueError(f"more than {MAX_ALIASES} aliases")
        if len({name, *aliases}) != 1 + len(aliases):
            raise ValueError("the same name twice")
        commit_hash = _optional_text(record, "commit_hash")
        if commit_hash is not None and not SHA1.fullmatch(commit_hash):
            raise ValueError(f"commit_hash is not 40 hex digits: {shown(commit_hash)}")
        return Snapshot(
            source=_text(record, "source"),
            name=name,
            layout=_text(record, "layout"),
            files=files,
            kind=_optional_text(record, "kind"),
            aliases=aliases,
            revision=_optional_text(record, "revision"),
            commit_hash=commit_hash,
            license=_optional_text(record, "license"),
            omitted=tuple(_omission(item) for item in _optional(record, "omitted", list) or []),
            specs=_texts(record, "specs"),
            needs=_texts(record, "needs"),
            code=tuple(
                Code(_text(item, "path"), _text(item, "reason"))
                for item in _optional(record, "code", list) or []
            ),
        )
    except ValueError as error:
        raise ValueError(f"in {shown(name)}: {error}") from None


def _drained(items: list[T]) -> Iterator[T]:
    """The items in their order, each of them let go of: a hundred thousand take much memory."""
    items.reverse()
    while items:
        yield items.pop()


def _file_entry(record: object) -> FileEntry:
    etag = _optional_text(record, "etag")
    if etag is not None and not _ETAG.fullmatch(etag):
        raise ValueError(f"an etag that is no plain file name: {shown(etag)}")
    blob = Blob(Digest.parse(_text(record, "digest")), _size(_get(record, "size", int)))
    return FileEntry(relative_path(_text(record, "path")), blob, etag)


def _omission(record: object) -> Omission:
    size = _optional(record, "size", int)
    return Omission(
        _text(record, "path"), None if size is None else _size(size), _text(record, "reason")
    )


def _check_paths_agree(files: tuple[FileEntry, ...]) -> None:
    """A snapshot has files, and a path is either one of them or a folder of others."""
    if not files:
        raise ValueError("no files")
    paths = {entry.path for entry in files}
    if len(paths) != len(files):
        raise ValueError("the same path twice")
    for folder in paths & folders_above(paths):
        raise ValueError(f"{shown(folder)} is both a file and a folder")


def _check_extent(manifest: Manifest, slashes: int) -> None:
    """What no size tells is within bounds: folders, and files that stand under several names."""
    if slashes > MAX_FOLDERS:  # Else there cannot be too many.
        folders = (len(folders_above(e.path for e in s.files)) for s in manifest.snapshots)
        if sum(folders) > MAX_FOLDERS:
            raise ValueError(f"more than {MAX_FOLDERS:,} folders")
    if sum(len(s.files) * len(s.names) for s in manifest.snapshots) > MAX_NAMED_FILES:
        raise ValueError(f"more than {MAX_NAMED_FILES:,} files, counted for every alias")


def _check_absent(manifest: Manifest) -> None:
    """Something is absent, and it is content of some file."""
    if not manifest.absent:
        raise ValueError("it lacks nothing, and says that it does")
    strangers = {*manifest.absent}.difference(blob.digest for blob in manifest.blobs())
    if strangers:
        raise ValueError(f"it lacks what no file has: {min(map(str, strangers))}")
    if len(manifest.builds_on) > MAX_BUILDS_ON:
        raise ValueError(f"it builds on more than {MAX_BUILDS_ON} bundles")


def _check_blobs_agree(manifest: Manifest) -> None:
    """Equal digests mean equal sizes, and an etag that is a hash is that of the content.

    A cache finds content by its etag: under another's name it would replace what is not its own.
    """
    sizes = {blob.digest: blob.size for blob in manifest.blobs()}
    git_names = manifest.git_names()
    for snapshot in manifest.snapshots:
        for entry in snapshot.files:
            if sizes[entry.blob.digest] != entry.blob.size:
                raise ValueError(f"two sizes for one digest: {entry.blob.digest}")
            etag = entry.etag or ""
            if SHA256.fullmatch(etag) and etag != entry.blob.digest.hex:
                raise ValueError(f"an etag that is the sha256 of other content: {etag}")
            if SHA1.fullmatch(etag) and etag != git_names[entry.blob.digest]:
                raise ValueError(f"two git names for one digest: {etag}")


def _get(record: object, key: str, kind: type[T]) -> T:
    value = _optional(record, key, kind)
    if value is None:
        raise ValueError(f"{key!r} is missing")
    return value


def _optional(record: object, key: str, kind: type[T]) -> T | None:
    if not isinstance(record, dict):
        raise ValueError(f"a {type(record).__name__} where an object with {key!r} belongs")
    value = record.get(key)
    if value is None:
        return None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{key!r} is a {type(value).__name__}, not a {kind.__name__}")
    return value


def _plain(value: object, key: str) -> str:
    if not isinstance(value, str) or not value or UNPRINTABLE.search(value):
        raise ValueError(f"{key!r} is not plain text: {shown(value)}")
    if len(value) > MAX_TEXT_LENGTH:
        raise ValueError(f"{key!r} has more than {MAX_TEXT_LENGTH:,} characters: {shown(value)}")
    return value


def _text(record: object, key: str) -> str:
    return _plain(_get(record, key, str), key)


def _optional_text(record: object, key: str) -> str | None:
    value = _optional(record, key, str)
    return None if value is None else _plain(value, key)


def _texts(record: object, key: str) -> tuple[str, ...]:
    return tuple(_plain(item, key) for item in _optional(record, key, list) or [])


def _digests(record: object, key: str) -> tuple[Digest, ...]:
    """Digests in the one order that they can have, each once."""
    digests = tuple(Digest.parse(text) for text in _texts(record, key))
    if any(one.hex >= other.hex for one, other in pairwise(digests)):
        raise ValueError(f"{key!r} is not in ascending order, each once")
    return digests


def _size(value: int) -> int:
    if not 0 <= value <= MAX_BLOB_SIZE:
        raise ValueError(f"a size of {shown(value)} bytes")
    return value
