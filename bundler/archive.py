"""The bundle file: the manifest first, then blobs by digest, in frames. FORMAT.md specifies it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Container, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bundler.digest import COPY_SIZE, Blob, Digest, Readable, VerifiedReader
from bundler.errors import DamagedError, FormatError, RequestError, TrustError
from bundler.frames import FrameWriter, SeekableFrames, StreamedFrames, read_exactly
from bundler.manifest import MAX_MANIFEST_SIZE, Manifest
from bundler.progress import Meter
from bundler.seek_table import FRAME_SIZE, read_seek_table

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
    blobs = list(manifest.blobs())
    for blob in sorted(blobs, key=lambda blob: blob.size >= LARGE):
        member = Member(blob, position)
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
    what the manifest says, and FormatError if the manifest would be too large to be read again.
    """
    content = manifest.to_bytes()
    Manifest.from_bytes(content)  # What cannot be read again is not written.
    if len(content) > MAX_MANIFEST_SIZE:
        raise FormatError(
            f"the manifest would take {len(content):,} bytes, more than the {MAX_MANIFEST_SIZE:,} "
            "that a bundle may have: pack fewer models into one bundle"
        )
    with FrameWriter(out, level, jobs) as frames:
        frames.write(_header(MANIFEST_NAME, len(content)) + content + _padding(len(content)))
        frames.cut()
        for member in members(manifest, len(content)):
            if member.blob.size >= LARGE:
                frames.cut()
            frames.write(_header(member.name, member.blob.size))
            with open_blob(member.blob) as stream:
                reader = VerifiedReader(stream, member.blob, member.name)
                while data := reader.read(COPY_SIZE):
                    frames.write(data)
                    meter.add(len(data))
            frames.write(_padding(member.blob.size))
        frames.write(_END)
        frames.close()
        return Written(Digest.of(content), frames.size)


class BundleReader:
    """A bundle opened for reading: its manifest at once, its blobs on demand.

    `manifest` is parsed and checked; `digest`, the bundle's id, is that of `manifest_bytes`.
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
            raise TrustError(f"this bundle is {self.digest}, not {expected}: nothing was unpacked")
        self.manifest = Manifest.from_bytes(content)
        self.manifest_bytes = content

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
        read_exactly(self._streamed.open(BLOCK + size, end), end - BLOCK - size)
        self._streamed.finish_frame()
        return content

    def members(self) -> Iterator[Member]:
        """Every member after the manifest, in the order of the file."""
        return members(self.manifest, len(self.manifest_bytes))

    def blobs(
        self, wanted: Container[Digest] | None = None, jobs: int | None = None
    ) -> Generator[tuple[Member, VerifiedReader], None, None]:
        """Each wanted blob (None: all) with a reader that checks it; in the order of the file.

        A reader is good until the next one is asked for. A fault is raised by the reader it
        concerns: asking for the next one after it is allowed, and leads on as far as the file can
        be read. A file that can seek is read only where needed, a pipe once from start to end.
        Raises DamagedError if the file is cut short.
        """
        all_members = list(self.members())
        end = all_members[-1].end if all_members else BLOCK + _padded(len(self.manifest_bytes))
        chosen = [m for m in all_members if wanted is None or m.blob.digest in wanted]
        frames: SeekableFrames | StreamedFrames = self._streamed
        with ExitStack() as stack:
            if self._source.seekable():
                # Not more than a writer that cuts tiny frames would need.
                max_frames = 64 + 2 * len(all_members) + end // (FRAME_SIZE // 64)
                table = read_seek_table(self._source, max_frames)
                if table.content_size != end + len(_END):
                    raise DamagedError("the seek table and the manifest tell different sizes")
                frames = SeekableFrames(self._source, table, jobs)
                stack.callback(frames.close)
            yield from self._read(frames, chosen)
            if wanted is None or frames is self._streamed:
                self._check_end(frames, end)

    def _check_end(self, frames: SeekableFrames | StreamedFrames, end: int) -> None:
        if read_exactly(frames.open(end, end + len(_END)), len(_END)) != _END:
            raise DamagedError("the bundle holds something else where its end is")
        # A pipe is read to its end also so that whoever writes into it ends well.
        if frames is self._streamed and self._streamed.drain():
            raise DamagedError("the bundle holds something after its end")

    @staticmethod
    def _read(
        frames: SeekableFrames | StreamedFrames, chosen: list[Member]
    ) -> Iterator[tuple[Member, VerifiedReader]]:
        run: Readable = io.BytesIO()
        position = -1
        ends = _ends_of_runs(chosen)
        for member, run_end in zip(chosen, ends, strict=True):
            if position != member.start:
                run = frames.open(member.start, run_end)
            content = _Member(run, member)
            reader = VerifiedReader(content, member.blob, member.name)
            yield member, reader
            position = member.end if content.skip_padding() else -1


def _ends_of_runs(chosen: list[Member]) -> list[int]:
    """For each member, where the run of chosen members that it stands in ends."""
    ends: list[int] = []
    for member, following in zip(reversed(chosen), [None, *reversed(chosen)], strict=False):
        adjacent = following is not None and following.start == member.end
        ends.append(ends[-1] if adjacent else member.end)
    return ends[::-1]


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
            except OSError as error:
                raise RequestError(f"cannot open {name}: {error.strerror}") from None
        try:
            reader = BundleReader(source, expected)
        except FormatError as error:
            raise FormatError(f"{name}: {error}") from None
        yield reader


def _checked_start(source: BinaryIO) -> Readable:
    """`source`, if it starts as zstd does. Raises FormatError and DamagedError."""
    try:
        start = source.read(len(_ZSTD_MAGIC))
    except OSError as error:
        raise DamagedError(f"the bundle cannot be read: {error.strerror}") from None
    if start != _ZSTD_MAGIC:
        raise FormatError("not a bundle: it is not compressed with zstd")
    return _Resumed(start, source)


class _Resumed:
    """A source of which the start was read already."""

    def __init__(self, start: bytes, source: Readable) -> None:
        self._start = start
        self._source = source

    def read(self, size: int = -1, /) -> bytes:
        start, self._start = self._start, b""
        return start or self._source.read(size)


class _Member:
    """The content of one member; its header is compared before the first byte is given out."""

    def __init__(self, run: Readable, member: Member) -> None:
        self._run = run
        self._member = member
        self._header_read = False
        self._left = member.blob.size

    def read(self, size: int = -1, /) -> bytes:
        if not self._header_read:
            self._header_read = True
            # There is exactly one right header, so links, devices, sparse files, pax records and
            # every other thing that a tar can say need no rules of their own.
            header = read_exactly(self._run, BLOCK)
            if header != _header(self._member.name, self._member.blob.size):
                self._left = -1
                raise DamagedError(f"the bundle holds something else where {self._member.name} is")
        data = self._run.read(size)
        self._left -= len(data)
        return data

    def skip_padding(self) -> bool:
        """Go to the end of the member; False if it was not read to its end or is damaged."""
        if self._left != 0 or not self._header_read:
            return False
        try:
            padding = read_exactly(self._run, len(_padding(self._member.blob.size)))
        except DamagedError:
            return False
        return not any(padding)


def _header(name: str, size: int) -> bytes:
    """The one header that a member of this name and size has."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def _padded(size: int) -> int:
    return size + len(_padding(size))


def _padding(size: int) -> bytes:
    return bytes(-size % BLOCK)
