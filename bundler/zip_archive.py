"""The files of a model that comes as a zip archive. Nothing is extracted: members are streams.

Each becomes a file of the snapshot that is read, verified and stored like any other. A member's
name is only looked at, never used as a path, and no more is read of it than it declares.
"""

from __future__ import annotations

import io
import re
import stat
import zipfile
import zlib
from dataclasses import dataclass, replace
from typing import IO, BinaryIO, cast

from bundler.digest import Digest, Stream
from bundler.errors import DamagedError, RequestError, shown
from bundler.names import folders_above, relative_path
from bundler.origin import Origin
from bundler.remote import PathInside, RemoteFile, RemoteSnapshot

MAX_MEMBERS = 100_000
MAX_RATIO = 200
"""How many times its own size an archive may hold; code and weights shrink at most to a tenth."""
_ENTRY = b"PK\1\2"
"""What each entry of the list of members begins with: APPNOTE.TXT, 4.3.12."""
_COMMIT_HASH = re.compile(rb"[0-9a-f]{40}")
_LARGEST_SMALL = 16 << 20
"""Bytes that any archive may hold, however small it is itself."""
MAX_DIRECTORY = 32 << 20
"""Bytes of an archive's list of members, which is read at once."""
_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,  # for places before the beginning
)


def from_zip(snapshot: RemoteSnapshot, archive: BinaryIO, digest: Digest) -> RemoteSnapshot:
    """`snapshot`, whose one file is the zip `archive`, as the files that it picks from inside.

    `archive` stays open as long as they are read; `digest` is its own. If its comment is a commit
    hash, as in GitHub's archives, that is the snapshot's commit. Raises DamagedError for what is no
    zip archive, and RequestError for one with members that lead elsewhere, are links, are
    encrypted, or are many times larger than the archive.
    """
    assert snapshot.inside is not None
    files: dict[str, RemoteFile] = {}
    try:
        bounded = _Bounded(archive)
        opened = zipfile.ZipFile(cast(BinaryIO, bounded))
        bounded.is_opened = True
    except _FAULTS as error:
        raise DamagedError(
            f"what came for {snapshot.name} is no zip archive ({_said(error)})"
        ) from None
    try:
        for member, path in _wanted(opened, snapshot.inside, archive.seek(0, io.SEEK_END)):
            if path in files:
                raise ValueError(f"two members for {shown(path)}")
            files[path] = RemoteFile(path, _Inside(opened, digest, member), size=member.file_size)
        paths = {relative_path(path) for path in files}
        for both in paths & folders_above(paths):
            raise ValueError(f"{shown(both)} both as a file and as a folder")
    except ValueError as error:
        raise RequestError(
            f"the archive of {snapshot.name} has {error}: it is refused, or leave that out "
            "with --exclude"
        ) from None
    comment = opened.comment if _COMMIT_HASH.fullmatch(opened.comment) else b""
    return replace(
        snapshot,
        files=tuple(files[path] for path in sorted(files)),
        commit_hash=comment.decode() or snapshot.commit_hash,
        inside=None,
    )


class _Bounded:
    """An archive of which not more is read at once than a list of members may have.

    What such a list says of itself need not be true, and is not always where one looks for it: what
    counts is what is really read.
    """

    def __init__(self, archive: BinaryIO) -> None:
        self._archive = archive
        self.seek, self.tell = archive.seek, archive.tell
        self.is_opened = False
        """Whether the list has been read."""

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._archive.read(MAX_DIRECTORY + 1 if size < 0 else min(size, MAX_DIRECTORY + 1))
        if len(data) > MAX_DIRECTORY:
            raise zipfile.BadZipFile(f"its list of members has more than {MAX_DIRECTORY:,} bytes")
        if not self.is_opened and data.count(_ENTRY) > MAX_MEMBERS:
            raise zipfile.BadZipFile(f"it has more than {MAX_MEMBERS:,} members")
        return data


def _wanted(
    archive: zipfile.ZipFile, inside: PathInside, archive_size: int
) -> list[tuple[zipfile.ZipInfo, str]]:
    """The members that are wanted, with the paths that they get. Raises ValueError."""
    wanted = []
    for member in archive.infolist():
        # Wanted or not: one that leads elsewhere makes all of it an attack.
        parts = member.filename.removesuffix("/").split("/")
        if {"..", ""} & {*parts} or "\\" in member.filename:
            raise ValueError(f"a path that leads elsewhere, {shown(member.filename)}")
        path = None if member.is_dir() else inside(member.filename)
        if path is None:
            continue
        relative_path(member.filename)
        mode = member.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise ValueError(f"a link or a device, {shown(member.filename)}")
        # The others unpack as much at once as they like.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"an unusual compression, of {shown(member.filename)}")
        if member.flag_bits & 0x1:
            raise ValueError(f"an encrypted member, {shown(member.filename)}")
        wanted.append((member, path))
    total = sum(member.file_size for member, _ in wanted)
    if total > max(MAX_RATIO * archive_size, _LARGEST_SMALL):
        raise ValueError(f"{total:,} bytes in an archive of {archive_size:,}")
    return wanted


@dataclass(frozen=True, slots=True, eq=False)
class _Inside(Origin):
    """A member of an archive of that digest."""

    archive: zipfile.ZipFile
    digest: Digest
    member: zipfile.ZipInfo

    @property
    def identity(self) -> str:
        return f"zip:{self.digest.hex}:{self.member.header_offset}:{self.member.filename}"

    def open(self, start: int, /) -> Stream:
        """As `Origin` has it. Raises DamagedError, as reads of what it gives do."""
        try:
            stream = self.archive.open(self.member)
            stream.seek(start)
        except _FAULTS as error:
            raise _damaged(self.member, error) from None
        return _Member(stream, self.member)


class _Member:
    """A member's content; the archive's own checksum is compared at its end."""

    def __init__(self, stream: IO[bytes], member: zipfile.ZipInfo) -> None:
        self._stream = stream
        self._member = member

    def read(self, size: int = -1, /) -> bytes:
        try:
            data = self._stream.read(size)
            if not data and self._stream.tell() < self._member.file_size:
                raise EOFError("it ends before it should")
            return data
        except _FAULTS as error:
            raise _damaged(self._member, error) from None

    def close(self) -> None:
        self._stream.close()


def _damaged(member: zipfile.ZipInfo, error: BaseException) -> DamagedError:
    return DamagedError(f"the archive is damaged at {shown(member.filename)}: {_said(error)}")


def _said(error: BaseException) -> str:
    """What zipfile says is wrong: it may quote names of any length."""
    return shown(error, 200).strip("'\"")
