"""The bundle file: the manifest first, then blobs by digest, in frames. FORMAT.md specifies it."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Container, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from bundler.digest import COPY_SIZE, Blob, Digest, Readable, VerifiedReader
from bundler.errors import DamagedError, FormatError, RequestError, TrustError
from bundler.frames import FrameWriter, SeekableFrames, StreamedFrames, read_exactly
from bundler.manifest import MAX_MANIFEST_SIZE, Manifest
from bundler.progress import Meter
from bundler.seek_table import FRAME_SIZE, SeekTable, read_seek_table

MANIFEST_NAME = "manifest.json"
BLOCK = 512
"""Bytes: the unit of tar."""
LARGE = 1 << 20
"""Bytes from which a blob starts a frame of its own."""
_END = bytes(2 * BLOCK)

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

BundleSource = Path | str | BinaryIO
"""A path, or an open binary stream, which need not seek."""


@dataclass(frozen=True, slots=True)
class Member:
    """One blob in the tar. Offsets are in the uncompressed content, in bytes."""

    blob: Blob
    start: int
    path: PurePosixPath
    model: str
    """The file of a snapshot that mentions the blob first."""
    git_sha1: str | None
    """Git's name of the content, where an etag states it."""

    @property
    def what(self) -> str:
        """For messages."""
        return f"{self.path} of {self.model}"

    @property
    def name(self) -> str:
        """The name in the tar: a digest, so it can never lead anywhere."""
        return f"blobs/sha256/{self.blob.digest.hex}"

    @property
    def end(self) -> int:
        """Where the next member starts."""
        return self.start + BLOCK + _padded(self.blob.size)


@dataclass(frozen=True, slots=True)
class Written:
    """A bundle's id, which is the digest of its manifest, and its size in bytes."""

    digest: Digest
    size: int


def members(manifest: Manifest, manifest_size: int) -> Iterator[Member]:
    """Every member after the manifest, in their order: small blobs, then large ones."""
    position = BLOCK + _padded(manifest_size)
    git_names = manifest.git_names()
    contents = sorted(manifest.contents(), key=lambda content: content[1].blob.size >= LARGE)
    for snapshot, entry in contents:
        git_sha1 = git_names.get(entry.blob.digest)
        member = Member(entry.blob, position, entry.path, snapshot.name, git_sha1)
        yield member
        position = member.end


def write_bundle(
    out: BinaryIO,
    manifest: Manifest,
    open_blob: Callable[[Blob], BinaryIO],
    meter: Meter,
    *,
    level: int,
    jobs: int | None = None,
) -> Written:
    """Write a bundle of `manifest` to `out`.

    Each blob is taken from `open_blob` and verified on the way. Raises DamagedError if one is not
    what the manifest says, and FormatError if the manifest could not be read again.
    """
    content = manifest.to_bytes()
    if len(content) > MAX_MANIFEST_SIZE:
        raise FormatError(
            f"the manifest would take {len(content):,} bytes, more than the {MAX_MANIFEST_SIZE:,} "
            "that a bundle may have: pack fewer models into one bundle"
        )
    Manifest.from_bytes(content)  # What cannot be read again is not written.
    with FrameWriter(out, level, jobs) as frames:
        frames.write(_header(MANIFEST_NAME, len(content)) + content + _padding(len(content)))
        frames.cut()
        for member in members(manifest, len(content)):
            if member.blob.size >= LARGE:
                frames.cut()
            frames.write(_header(member.name, member.blob.size))
            with open_blob(member.blob) as stream:
                reader = VerifiedReader(stream, member.blob, member.what, member.git_sha1)
                while data := reader.read(COPY_SIZE):
                    frames.write(data)
                    meter.add(len(data))
            frames.write(_padding(member.blob.size))
        frames.write(_END)
        frames.close()
        return Written(Digest.of(content), frames.size)


class BundleReader:
    """A bundle opened for reading: its manifest at once, its blobs on demand.

    `manifest` is parsed and checked; `digest`, the bundle's id, is that of `manifest_bytes`;
    `members` are all that follow the manifest, in the order of the file.
    """

    def __init__(self, source: BinaryIO, expected: Digest | None = None) -> None:
        """Read the manifest from `source`, no further.

        Raises FormatError if it is not a bundle, DamagedError if it is cut or altered, and
        TrustError if its id is not `expected`.
        """
        self._source = source
        self._streamed = StreamedFrames(_checked_start(source))
        content = self._read_manifest()
        self.digest = Digest.of(content)
        if expected is not None and self.digest != expected:
            raise TrustError(f"this is another bundle than the one named: its id is {self.digest}")
        self.manifest = Manifest.from_bytes(content)
        self.manifest_bytes = content
        self.members = tuple(members(self.manifest, len(content)))
        self._end = self.members[-1].end
        """Where the members end and the zeros begin."""

    def _read_manifest(self) -> bytes:
        header = read_exactly(self._streamed.open(0, BLOCK), BLOCK)
        try:
            size = int(header[124:136].rstrip(b"\0 ") or b"0", 8)
            if header != _header(MANIFEST_NAME, size):
                raise ValueError
        except ValueError:
            raise FormatError("not a bundle: it does not start with a manifest") from None
        if size > MAX_MANIFEST_SIZE:
            raise FormatError(
                f"the manifest takes {size:,} bytes, more than the {MAX_MANIFEST_SIZE:,} "
                "that this bundler reads"
            )
        content = read_exactly(self._streamed.open(BLOCK, BLOCK + size), size)
        end = BLOCK + _padded(size)
        if any(read_exactly(self._streamed.open(BLOCK + size, end), end - BLOCK - size)):
            raise DamagedError("the bundle holds something else after its manifest")
        self._streamed.finish_frame()
        return content

    def check_end(self) -> None:
        """Look, without reading on, whether the file is there to its end; a pipe cannot be told.

        Raises DamagedError if it was cut short or grew.
        """
        if self._source.seekable():
            position = self._source.tell()
            self._seek_table()
            self._source.seek(position)

    def blobs(
        self,
        wanted: Container[Digest] | None = None,
        jobs: int | None = None,
        *,
        straight: bool = False,
    ) -> Generator[tuple[Member, VerifiedReader], None, None]:
        """Each wanted blob (None: all) with a reader that checks it; in the order of the file.

        A reader is good until the next one is asked for. A fault is raised by the reader it
        concerns: asking for the next one after it is allowed, and leads on as far as the file can
        be read. A file that can seek is read only where needed, a pipe once from start to end, and
        so is a file if `straight`, which needs no seek table. Raises DamagedError if the file is
        cut short.
        """
        chosen = [m for m in self.members if wanted is None or m.blob.digest in wanted]
        frames: SeekableFrames | StreamedFrames = self._streamed
        with ExitStack() as stack:
            if self._source.seekable() and not straight:
                frames = SeekableFrames(self._source, self._seek_table(), jobs)
                stack.callback(frames.close)
            yield from self._read(frames, chosen)
            if wanted is None or frames is self._streamed:
                self._read_end(frames)

    def _seek_table(self) -> SeekTable:
        # Not more frames than a writer that cuts tiny ones would need.
        max_frames = 64 + 2 * len(self.members) + self._end // (FRAME_SIZE // 64)
        table = read_seek_table(self._source, max_frames)
        if table.content_size != self._end + len(_END):
            raise DamagedError("the seek table and the manifest tell different sizes")
        return table

    def _read_end(self, frames: SeekableFrames | StreamedFrames) -> None:
        end = self._end
        if read_exactly(frames.open(end, end + len(_END)), len(_END)) != _END:
            raise DamagedError("the bundle holds something else where its end is")
        # A pipe is read to its end also so that whoever writes into it ends well.
        if frames is self._streamed and self._streamed.drain():
            raise DamagedError("the bundle holds something after its end")

    @staticmethod
    def _read(
        frames: SeekableFrames | StreamedFrames, chosen: list[Member]
    ) -> Iterator[tuple[Member, VerifiedReader]]:
        for run in _runs(chosen):
            stream: Readable | None = None
            for member in run:
                stream = stream or frames.open(member.start, run[-1].end)
                content = _Content(stream, member)
                yield member, VerifiedReader(content, member.blob, member.what, member.git_sha1)
                if not content.ended:  # Left early, or damaged: the next one is looked up.
                    stream = None


def _runs(chosen: list[Member]) -> Iterator[list[Member]]:
    """`chosen` in groups that stand side by side in the file."""
    run: list[Member] = []
    for member in chosen:
        if run and run[-1].end != member.start:
            yield run
            run = []
        run.append(member)
    if run:
        yield run


@contextmanager
def open_bundle(source: BundleSource, expected: Digest | None = None) -> Iterator[BundleReader]:
    """A reader of the bundle at a path or of an open stream, which is not closed.

    Raises RequestError if there is no such file, and as `BundleReader` does.
    """
    with ExitStack() as stack:
        name = str(source) if isinstance(source, (str, Path)) else "the input"
        if isinstance(source, (str, Path)):
            try:
                source = stack.enter_context(open(source, "rb"))
            except IsADirectoryError:
                raise RequestError(f"{name} is a folder: name the bundle in it") from None
            except OSError as error:
                raise RequestError(f"cannot open {name}: {error.strerror}") from None
        try:
            reader = BundleReader(source, expected)
        except FormatError as error:
            raise FormatError(f"{name}: {error}") from None
        yield reader


def _checked_start(source: BinaryIO) -> Readable:
    """`source`, if it starts as zstd does. Raises FormatError and DamagedError."""
    start = b""
    try:
        while more := source.read(len(_ZSTD_MAGIC) - len(start)):
            start += more
    except OSError as error:
        raise DamagedError(f"the bundle cannot be read: {error.strerror}") from None
    if not start:
        raise FormatError("not a bundle: it is empty, copy it again")
    if start != _ZSTD_MAGIC:
        raise FormatError("not a bundle: name the file that bundler pack wrote")
    return _Resumed(start, source)


class _Resumed:
    """A source of which the start was read already."""

    def __init__(self, start: bytes, source: Readable) -> None:
        self._start = start
        self._source = source

    def read(self, size: int = -1, /) -> bytes:
        start, self._start = self._start, b""
        return start or self._source.read(size)


class _Content:
    """The content of one member; header and padding are compared on the way.

    There is exactly one right header, so links, devices, sparse files, pax records and every other
    thing that a tar can say need no rules of their own.
    """

    def __init__(self, run: Readable, member: Member) -> None:
        self._run = run
        self._member = member
        self._left = member.blob.size
        self._started = False
        self.ended = False

    def read(self, size: int = -1, /) -> bytes:
        member = self._member
        try:
            if not self._started:
                self._started = True
                if read_exactly(self._run, BLOCK) != _header(member.name, member.blob.size):
                    raise DamagedError("something else stands there")
            data = self._run.read(size)
            self._left -= len(data)
            if self._left == 0 and not self.ended:
                if any(read_exactly(self._run, len(_padding(member.blob.size)))):
                    raise DamagedError("something else stands after it")
                self.ended = True
        except DamagedError as error:
            raise DamagedError(f"{member.what} cannot be read: {error}") from None
        return data


def _header(name: str, size: int) -> bytes:
    """The one header that a member of this name and size has."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def _padded(size: int) -> int:
    return size + len(_padding(size))


def _padding(size: int) -> bytes:
    return bytes(-size % BLOCK)
