"""What a manifest may say: rules, and bounds on what it makes a reader do (FORMAT.md)."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from bundler.digest import SHA1, SHA256, Digest
from bundler.errors import FormatError, shown
from bundler.names import MAX_TEXT_LENGTH, UNPRINTABLE, check_path, folders_above

if TYPE_CHECKING:  # It checks itself by these.
    from bundler.manifest import FileEntry, Manifest, Snapshot

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
MAX_FOLDER_TEXT = 1 << 26
"""Characters of the folders that files are in, each as often as it has components, counted as
above: whoever makes a set of all folders repeats those above them."""
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


def check_manifest(manifest: Manifest) -> None:
    """Raise FormatError, naming the field, if a manifest says what none may say."""
    try:
        if not manifest.snapshots:
            raise ValueError("it names no models")
        if len(manifest.snapshots) > MAX_SNAPSHOTS:
            raise ValueError(f"more than {MAX_SNAPSHOTS:,} models")
        if sum(map(_folder_text, manifest.snapshots)) > MAX_FOLDER_TEXT:
            raise ValueError(f"more than {MAX_FOLDER_TEXT:,} characters of folders")
        if sum(map(_folders_of_checked, manifest.snapshots)) > MAX_FOLDERS:
            raise ValueError(f"more than {MAX_FOLDERS:,} folders")
        if sum(len(s.files) * len(s.names) for s in manifest.snapshots) > MAX_NAMED_FILES:
            raise ValueError(f"more than {MAX_NAMED_FILES:,} files, counted for every alias")
        _check_blobs_agree(manifest)
        _check_absent(manifest)
    except ValueError as error:
        raise FormatError(f"the manifest of this bundle is refused: {error}") from None


def has_too_many_values(content: bytes) -> bool:
    """Whether the values in a text of JSON would take much more memory than it does."""
    brackets = content.count(b"[") + content.count(b"{")
    return content.count(b",") > MAX_MANIFEST_COMMAS or brackets > MAX_MANIFEST_BRACKETS


def check_extent(content: bytes) -> None:
    """Raise FormatError if what is in the text of a manifest would take too much memory."""
    if has_too_many_values(content):
        raise FormatError(
            f"the manifest of this bundle has more than {MAX_MANIFEST_COMMAS:,} values"
        )
    if sum(map(content.count, (b"/", rb"\u002f", rb"\u002F"))) > MAX_SLASHES:
        raise FormatError(f"the manifest of this bundle has more than {MAX_SLASHES:,} slashes")


def _folder_text(snapshot: Snapshot) -> int:
    """What `MAX_FOLDER_TEXT` is about, of one snapshot."""
    folders = {entry.path.parent for entry in snapshot.files}
    return sum(len(folder) * (1 + folder.count("/")) for folder in folders)


def _folders_of_checked(snapshot: Snapshot) -> int:
    """How many folders its files are in. Raises ValueError if it says what none may say."""
    _check_plain(snapshot.name, "name")
    try:
        _check_fields(snapshot)
        return _folders_of(snapshot.files)
    except ValueError as error:
        raise ValueError(f"in {shown(snapshot.name)}: {error}") from None


def _check_fields(snapshot: Snapshot) -> None:
    for key in ("source", "layout", "kind", "revision", "license"):
        if (value := getattr(snapshot, key)) is not None:
            _check_plain(value, key)
    for key in ("aliases", "specs", "needs"):
        for value in getattr(snapshot, key):
            _check_plain(value, key)
    for omission in snapshot.omitted:
        _check_plain(omission.path, "path")
        _check_plain(omission.reason, "reason")
        _check_size(omission.size or 0)
    for code in snapshot.code:
        _check_plain(code.path, "path")
        _check_plain(code.reason, "reason")
    if len(snapshot.aliases) > MAX_ALIASES:
        raise ValueError(f"more than {MAX_ALIASES} aliases")
    if len({*snapshot.names}) != len(snapshot.names):
        raise ValueError("the same name twice")
    if snapshot.commit_hash is not None and not SHA1.fullmatch(snapshot.commit_hash):
        raise ValueError(f"commit_hash is not 40 hex digits: {shown(snapshot.commit_hash)}")
    for entry in snapshot.files:
        check_path(entry.path)
        _check_size(entry.blob.size)
        if entry.etag is not None and not _ETAG.fullmatch(entry.etag):
            raise ValueError(f"an etag that is no plain file name: {shown(entry.etag)}")


def _check_plain(value: str, key: str) -> None:
    if not value or UNPRINTABLE.search(value):
        raise ValueError(f"{key!r} is not plain text: {shown(value)}")
    if len(value) > MAX_TEXT_LENGTH:
        raise ValueError(f"{key!r} has more than {MAX_TEXT_LENGTH:,} characters: {shown(value)}")


def _check_size(value: int) -> None:
    if not 0 <= value <= MAX_BLOB_SIZE:
        raise ValueError(f"a size of {shown(value)} bytes")


def _folders_of(files: tuple[FileEntry, ...]) -> int:
    """How many there are, if there are files, and a path is either one or a folder of others."""
    if not files:
        raise ValueError("no files")
    paths = {entry.path for entry in files}
    if len(paths) != len(files):
        raise ValueError("the same path twice")
    folders = folders_above(paths)
    for folder in paths & folders:
        raise ValueError(f"{shown(folder)} is both a file and a folder")
    return len(folders)


def _check_blobs_agree(manifest: Manifest) -> None:
    """Equal digests mean equal sizes, and an etag that is a hash is that of the content.

    A cache finds content by its etag: under another's name it would replace what is not its own.
    """
    sizes: dict[Digest, int] = {}
    git_names: dict[Digest, str] = {}
    for snapshot in manifest.snapshots:
        for entry in snapshot.files:
            digest, size, etag = entry.blob.digest, entry.blob.size, entry.etag or ""
            if sizes.setdefault(digest, size) != size:
                raise ValueError(f"two sizes for one digest: {digest}")
            if SHA256.fullmatch(etag) and etag != digest.hex:
                raise ValueError(f"an etag that is the sha256 of other content: {etag}")
            if SHA1.fullmatch(etag) and git_names.setdefault(digest, etag) != etag:
                raise ValueError(f"two git names for one digest: {etag}")


def _check_absent(manifest: Manifest) -> None:
    """What is absent is content of some file; digests have the one order that they can have."""
    for key in ("absent", "builds_on"):
        if any(one >= other for one, other in pairwise(getattr(manifest, key))):
            raise ValueError(f"{key!r} is not in ascending order, each once")
    if manifest.absent:
        strangers = {*manifest.absent}.difference(blob.digest for blob in manifest.blobs())
        if strangers:
            raise ValueError(f"it lacks what no file has: {min(strangers)}")
    if len(manifest.builds_on) > MAX_BUILDS_ON:
        raise ValueError(f"it builds on more than {MAX_BUILDS_ON} bundles")
