"""The bundle file, as it is read: the manifest at once, blobs on demand. FORMAT.md specifies it."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO, cast

from bundler.digest import COPY_SIZE, Digest, Readable
from bundler.errors import BundlerError, DamagedError, FormatError, RequestError, TrustError
from bundler.extraction import Extraction, Receiver
from bundler.frames import (
    CUT_SHORT,
    StreamedFrames,
    decompressed,
    read_exactly,
)
from bundler.manifest import Manifest
from bundler.manifest_rules import MAX_MANIFEST_SIZE
from bundler.members import (
    BLOCK,
    END,
    MANIFEST_NAME,
    Member,
    header_of,
    members,
    padding,
)
from bundler.parallel import Count
from bundler.seek_table import FRAME_SIZE, SeekTable, read_seek_table
from bundler.trust import Trust, signature_path
from bundler.volume_files import find_volumes
from bundler.volumes import Ask, Volumes
from bundler.zstd import zstd

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

BundleSource = Path | str | Sequence[Path | str] | BinaryIO
"""A path, several by which all volumes of a split bundle are found (`find_volumes`), or an open
binary stream, which need not seek."""


class BundleReader:
    """A bundle opened for reading: its manifest at once, its blobs on demand.

    `manifest` is parsed and checked; `digest`, the bundle's id, is that of its bytes;
    `manifest_bytes` are these if they were to be kept, and else empty; `members` are all that
    follow the manifest, in the order of the file; `signer` is the trusted key that has signed all
    this, if there was to be one; `signature` is where its signature is by default, and None of a
    stream.
    """

    def __init__(
        self,
        source: BinaryIO,
        expected: Digest | None = None,
        trusted: Trust | None = None,
        signatures: Sequence[Path] = (),
        volumes: Volumes | None = None,
        *,
        keep_bytes: bool = False,
    ) -> None:
        """Read the manifest from `source`, no further, and if there are `trusted` keys a signature.

        `signatures`: where that is by default, the first of these that is there. `volumes`: what
        `source` is the stream of, if any. `keep_bytes`: those of the manifest, which may be
        many.

        Raises FormatError if it is not a bundle, DamagedError if it is cut or altered, TrustError
        if its id is not `expected`, or nobody who is `trusted` has signed it, and RequestError if
        the signature of a stream is not named.
        """
        self._source = source
        self._volumes = volumes
        self._streamed = StreamedFrames(_checked_start(source))
        try:
            content = self._read_manifest()
            self.digest = Digest.of(content)
            if expected is not None and self.digest != expected:
                raise TrustError(
                    f"this is another bundle than the one named: its id is {self.digest}"
                )
            self.manifest = Manifest.from_bytes(content)
            self.manifest_bytes = content if keep_bytes else b""
            self.members = tuple(members(self.manifest, len(content)))
            # Looked for only now: it may be on a stick that was asked for.
            there = filter(os.path.exists, signatures)
            self.signature = next(there, signatures[0] if signatures else None)
            self.signer = (
                None if trusted is None else trusted.signer(self.signature, content, self.members)
            )
        except BaseException:
            self.close()
            raise
        self._end = _end(self.members, len(content))

    def _read_manifest(self) -> bytes:
        header = read_exactly(self._streamed, BLOCK)
        try:
            size = int(header[124:136].rstrip(b"\0 ") or b"0", 8)
            if header != header_of(MANIFEST_NAME, size):
                raise ValueError
        except ValueError:
            raise FormatError("not a bundle: it does not start with a manifest") from None
        if size > MAX_MANIFEST_SIZE:
            raise FormatError(
                f"the manifest takes {size:,} bytes, more than the {MAX_MANIFEST_SIZE:,} "
                "that this bundler reads"
            )
        content = read_exactly(self._streamed, size)
        if any(read_exactly(self._streamed, len(padding(size)))):
            raise DamagedError("the bundle holds something else after its manifest")
        try:
            self._streamed.finish_frame()
        except DamagedError:
            # That may be of the frame that follows, which the decoder has begun with.
            if not self._starts_with(header + content, content):
                raise
        return content

    def _starts_with(self, start: bytes, manifest: bytes) -> bool:
        """Whether the frames of the manifest, each read alone, hold `start`."""
        if not self._source.seekable() or zstd().decompressor is None:
            return False
        position = self._source.tell()
        try:
            following = tuple(members(Manifest.from_bytes(manifest), len(manifest)))
            table = self._seek_table(following, _end(following, len(manifest)))
            numbers = table.frames_at([(0, len(start))])
            with closing(decompressed(self._source, table, numbers, _content, 1)) as contents:
                return b"".join(contents).startswith(start)
        except (DamagedError, FormatError):
            return False
        finally:
            self._source.seek(position)

    def close(self) -> None:
        """Nothing more will be read. The source stays open."""
        self._streamed.close()

    def check_end(self) -> None:
        """Look, without reading on, whether the file is there to its end; a pipe cannot be told.

        Raises DamagedError if it was cut short or grew.
        """
        if self._source.seekable():
            position = self._source.tell()
            try:
                self._seek_table(self.members, self._end)
            finally:
                self._source.seek(position)  # What is there may still be read straight.

    def volume_faults(self) -> Mapping[str, BundlerError]:
        """What is wrong with which volumes by themselves; nothing if the bundle is in one file."""
        return {} if self._volumes is None else self._volumes.faults()

    def extract(
        self,
        receiver: Receiver,
        wanted: Container[Digest] | None = None,
        *,
        jobs: int | None = None,
        count: Count = lambda _: None,
        straight: bool = False,
    ) -> None:
        """Give each wanted blob (None: all) to `receiver`, compared with its digest.

        A file that can seek is read only where needed, a pipe once from start to end, and so is a
        file if `straight`, which needs no seek table, or if that is all that the zstd here does.
        `count` is told how many bytes are done. Raises DamagedError if the file as a whole is not
        as it should be, and what `receiver` does.
        """
        chosen = [m for m in self.members if wanted is None or m.blob.digest in wanted]
        with Extraction(chosen, self._end, receiver) as extraction:
            straight = straight or zstd().decompressor is None
            if self._source.seekable() and not straight:
                ends = [(self._end, self._end + len(END))] if wanted is None else []
                spans = chain(((member.start, member.end) for member in chosen), ends)
                table = self._seek_table(self.members, self._end)
                contents = decompressed(
                    self._source, table, table.frames_at(spans), extraction.take, jobs
                )
                with closing(contents):
                    for pieces in contents:
                        extraction.write(pieces, count)
            else:
                self._read_straight(extraction, count)

    def salvage(
        self,
        receiver: Receiver,
        wanted: Container[Digest],
        *,
        jobs: int | None = None,
        count: Count = lambda _: None,
    ) -> DamagedError | None:
        """As `extract`, as far as it goes: what is wrong with the file is returned, not raised."""
        fault = None
        try:
            self.check_end()
        except DamagedError as error:
            fault = error
        try:
            self.extract(receiver, wanted, jobs=jobs, count=count, straight=fault is not None)
        except DamagedError as error:
            fault = fault or error
        return fault

    def _read_straight(self, extraction: Extraction, count: Count) -> None:
        """Read on to the end; of a pipe also so that whoever writes into it ends well."""
        end = self._end + len(END)
        while True:
            start = self._streamed.position
            try:
                content = self._streamed.read(COPY_SIZE)
                if not content and start < end:
                    raise DamagedError(CUT_SHORT)
            except DamagedError as error:
                extraction.write(extraction.take(start, end, error), count)
                raise
            if not content:
                return
            pieces = extraction.take(start, self._streamed.position, content)
            extraction.write(pieces, count)

    def _seek_table(self, members: Sequence[Member], end: int) -> SeekTable:
        # Not more frames than a writer that cuts tiny ones would need.
        max_frames = 64 + 2 * len(members) + end // (FRAME_SIZE // 64)
        table = read_seek_table(self._source, max_frames)
        if table.content_size != end + len(END):
            raise DamagedError("the seek table and the manifest tell different sizes")
        return table


def _end(following: Sequence[Member], manifest_size: int) -> int:
    """Where the members end and the zeros begin."""
    start = BLOCK + manifest_size + len(padding(manifest_size))
    return following[-1].end if following else start


def _content(_begin: int, _end: int, content: bytes | DamagedError) -> bytes:
    if isinstance(content, DamagedError):
        raise content
    return content


@contextmanager
def open_bundle(
    source: BundleSource,
    expected: Digest | None = None,
    trusted: Trust | None = None,
    *,
    ask: Ask | None = None,
    hashed: bool = False,
    whole: bool = True,
    keep_bytes: bool = False,
) -> Iterator[BundleReader]:
    """A reader of the bundle at a path, in volumes, or of an open stream, which is not closed.

    `ask`: somebody who can insert a stick with a volume that is missing; `hashed`: so that
    `volume_faults` of the reader can tell. `whole`: a volume that is missing or of the wrong size
    is an error at once; otherwise one behind the manifest is damage like any other. `keep_bytes` is
    as in `BundleReader`.

    Raises RequestError if there is no such file, and as `find_volumes`, `Volumes` and
    `BundleReader` do; of volumes, in place of what is wrong with the bundle, what is with a volume.
    """
    with ExitStack() as stack:
        name, files, volumes = "the input", None, None
        signatures: list[Path] = []
        if isinstance(source, (str, Path, Sequence)):
            paths = [Path(source)] if isinstance(source, (str, Path)) else [*map(Path, source)]
            name = ", ".join(map(str, paths))
            files = find_volumes(paths)
            if files is None:
                signatures = [signature_path(paths[0])]
                try:
                    source = stack.enter_context(open(paths[0], "rb"))
                except OSError as error:
                    raise RequestError(f"cannot open {name}: {error.strerror}") from None
            else:
                signatures = [signature_path(folder / files.base) for folder in files.folders]
                volumes = Volumes(files, ask=ask, hashed=hashed, whole=whole)
                stack.enter_context(closing(volumes))
                source = cast(BinaryIO, volumes)
        with _explained(volumes):
            if volumes is not None and whole:
                volumes.check_sizes()
            try:
                reader = BundleReader(
                    source, expected, trusted, signatures, volumes, keep_bytes=keep_bytes
                )
            except FormatError as error:
                raise FormatError(f"{name}: {error}") from None
            except DamagedError as error:
                raise (error if volumes is None else volumes.without_manifest(error)) from None
        stack.callback(reader.close)
        if files is not None:
            files.check_id(reader.digest)
        with _explained(volumes):
            yield reader


@contextmanager
def _explained(volumes: Volumes | None) -> Iterator[None]:
    """Tell what is wrong with a volume, in place of what that does to the bundle."""
    try:
        yield
    except (DamagedError, FormatError) as error:
        raise (volumes.explained(error) if volumes is not None else error) from None


def _checked_start(source: BinaryIO) -> Readable:
    """`source`, if it starts as zstd does. Raises FormatError and DamagedError."""
    start = b""
    try:
        while more := source.read(len(ZSTD_MAGIC) - len(start)):
            start += more
    except OSError as error:
        raise DamagedError(f"the bundle cannot be read: {error.strerror}") from None
    if not start:
        raise FormatError("not a bundle: it is empty, copy it again")
    if start != ZSTD_MAGIC:
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
