"""Frames and their table, read by the published format and not by the code that wrote them."""

from __future__ import annotations

import io
import random
import struct
import threading
from collections.abc import Iterable, Sequence
from typing import BinaryIO, NamedTuple

import pytest
import zstandard
from bundle_builder import CountingFile, Pipe
from hypothesis import given
from hypothesis import strategies as st

from bundler.errors import DamagedError
from bundler.frame_writer import STORED, FrameWriter, Piece, stored
from bundler.frames import StreamedFrames, decompressed
from bundler.seek_table import FRAME_SIZE, SeekTable, read_seek_table

NOISE = random.Random(0).randbytes(1 << 20)
pieces = st.lists(st.binary(max_size=40), max_size=6)
"""Content; a frame ends after each piece."""


class Line(NamedTuple):
    """One frame, as the table tells it."""

    frame: bytes
    content_size: int
    checksum: int


def written(pieces: Sequence[bytes], level: int = 3, jobs: int | None = None) -> bytes:
    """`pieces` as a stream, a frame for each."""
    out = io.BytesIO()
    done: list[int] = []
    writer = FrameWriter(out, jobs)
    writer.write([Piece(piece, level, len(piece)) for piece in pieces if piece], done.append)
    assert writer.size == len(out.getvalue())
    assert sum(done) == sum(map(len, pieces))
    return out.getvalue()


def lines_of(stream: bytes) -> list[Line]:
    """The frames of `stream`, found by the Zstandard seekable format 0.1.0."""
    count, descriptor, seekable_magic = struct.unpack("<IBI", stream[-9:])
    assert seekable_magic == 0x8F92EAB1
    assert descriptor == 0b1000_0000, "checksums, and no reserved bit"
    table_size = count * 12 + 9
    table = stream[-table_size - 8 :]
    assert struct.unpack("<II", table[:8]) == (0x184D2A5E, table_size)
    lines, position = [], 0
    for compressed, content_size, checksum in struct.iter_unpack("<III", table[8:-9]):
        lines.append(Line(stream[position : position + compressed], content_size, checksum))
        position += compressed
    assert position == len(stream) - len(table)
    return lines


def content_of(stream: bytes) -> bytes:
    """What any decoder makes of `stream`."""
    reader = zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True)
    content: bytes = reader.read()
    return content


def read_frames(
    file: BinaryIO, table: SeekTable, numbers: Iterable[int], jobs: int | None = None
) -> list[tuple[int, bytes | DamagedError]]:
    """Where each frame begins, and what comes of it."""
    is_turn = threading.Lock()

    def take(
        start: int, stop: int, content: bytes | DamagedError
    ) -> tuple[int, bytes | DamagedError]:
        assert is_turn.acquire(blocking=False), "one at a time"
        assert isinstance(content, DamagedError) or len(content) == stop - start
        is_turn.release()
        return start, content

    return [*decompressed(file, table, numbers, take, jobs)]


@given(pieces)
def test_any_decoder_reads_the_content_straight_through(pieces: list[bytes]) -> None:
    assert content_of(written(pieces)) == b"".join(pieces)


@given(pieces)
def test_the_table_tells_the_size_and_checksum_of_every_frame(pieces: list[bytes]) -> None:
    lines = lines_of(written(pieces))
    decompressor = zstandard.ZstdDecompressor()
    contents = [decompressor.decompress(line.frame, allow_extra_data=False) for line in lines]
    assert contents == [piece for piece in pieces if piece]
    for line, content in zip(lines, contents, strict=True):
        parameters = zstandard.get_frame_parameters(line.frame)
        assert parameters.has_checksum
        assert parameters.content_size == line.content_size == len(content)
        assert line.checksum.to_bytes(4, "little") == line.frame[-4:]


def test_the_checksum_is_the_low_half_of_xxh64() -> None:
    xxh64_of_a = 0xD24EC4F1A98C6E5B
    assert [line.checksum for line in lines_of(written([b"a"]))] == [xxh64_of_a & 0xFFFFFFFF]


@pytest.mark.parametrize("jobs", [2, 7])
def test_the_bytes_do_not_depend_on_the_number_of_threads(jobs: int) -> None:
    pieces = [NOISE, b"a" * 10, bytes(FRAME_SIZE), NOISE[:1000]] * 3
    assert written(pieces, jobs=jobs) == written(pieces, jobs=1)


def test_an_interruption_while_threads_are_started_is_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the instant between the start of a thread and its being known to run."""
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def interrupted(thread: threading.Thread) -> None:
        started.append(thread)
        if len(started) == 2:
            raise KeyboardInterrupt
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        written([NOISE], jobs=3)
    assert not any(thread.is_alive() for thread in started)


def test_a_higher_level_saves_bytes() -> None:
    words = random.Random(0).choices(
        ["some", "model", "weights", "words", "in", "a", "row"], k=9999
    )
    text = " ".join(words).encode()
    assert len(written([text], level=19)) < len(written([text], level=1)) < len(text)
    assert content_of(written([text], level=19)) == text


@given(pieces.filter(any), st.data(), st.integers(1, 3))
def test_any_frames_are_read_from_a_file_in_their_order(
    pieces: list[bytes], data: st.DataObject, jobs: int
) -> None:
    content = b"".join(pieces)
    file = io.BytesIO(written(pieces))
    table = read_seek_table(file, len(pieces))
    numbers = sorted(data.draw(st.sets(st.integers(0, len(table) - 1))))
    spans = [table.content_offsets[number : number + 2] for number in numbers]
    expected = [(start, content[start:stop]) for start, stop in spans]
    assert read_frames(file, table, numbers, jobs) == expected


@given(pieces, st.integers(1, 9))
def test_a_pipe_is_read_straight_through(pieces: list[bytes], step: int) -> None:
    frames = StreamedFrames(Pipe(written(pieces)))
    assert b"".join(iter(lambda: frames.read(step), b"")) == b"".join(pieces)
    assert frames.position == sum(map(len, pieces))


@given(pieces.filter(any), st.data())
def test_the_table_finds_the_frames_of_any_spans(pieces: list[bytes], data: st.DataObject) -> None:
    table = read_seek_table(io.BytesIO(written(pieces)), len(pieces))
    edges = st.integers(0, table.content_size)
    cuts = sorted(data.draw(st.lists(edges, max_size=6, unique=True)))
    spans = [*zip(cuts[::2], cuts[1::2], strict=False)]
    held = {table.frame_at(byte) for start, stop in spans for byte in range(start, stop)}
    assert [*table.frames_at(spans)] == sorted(held)


@given(pieces.filter(any))
def test_every_byte_of_content_is_found_in_its_frame(pieces: list[bytes]) -> None:
    table = read_seek_table(io.BytesIO(written(pieces)), len(pieces))
    owners = [number for number, piece in enumerate(filter(None, pieces)) for _ in piece]
    assert [table.frame_at(offset) for offset in range(table.content_size)] == owners
    assert len(table) == len(list(filter(None, pieces)))


def test_a_part_of_a_file_costs_the_table_and_the_frames_it_stands_in() -> None:
    file = CountingFile(written([NOISE] * 8))
    table = read_seek_table(file, 8)
    assert file.count < 1000
    assert read_frames(file, table, [3]) == [(3 * len(NOISE), NOISE)]
    assert file.count < len(NOISE) + 2000


def test_a_finished_stream_has_a_table_and_a_cut_one_has_none() -> None:
    stream = written([b"content"])
    assert len(read_seek_table(io.BytesIO(stream), 1)) == 1
    for other in (stream[:-1], stream + b"\0", b""):
        with pytest.raises(DamagedError, match="copy it again"):
            read_seek_table(io.BytesIO(other), 1)


def test_a_table_of_more_frames_than_allowed_is_refused() -> None:
    file = io.BytesIO(written([b"a", b"b", b"c"]))
    assert len(read_seek_table(file, 3)) == 3
    with pytest.raises(DamagedError):
        read_seek_table(file, 2)


@pytest.mark.parametrize("position", range(0, 30, 3))
def test_no_damaged_frame_is_handed_out_whole(position: int) -> None:
    text = b"content that is compressed"
    stream = bytearray(written([b"before", text, b"after"]))
    stream[len(lines_of(bytes(stream))[0].frame) + position] ^= 0x10
    file = io.BytesIO(stream)
    (_, before), (_, damaged), (_, after) = read_frames(file, read_seek_table(file, 3), range(3))
    assert isinstance(damaged, DamagedError)
    assert [before, after] == [b"before", b"after"]


@pytest.mark.parametrize(
    "size", [0, 1, 255, 256, (128 << 10) - 1, 128 << 10, (128 << 10) + 1, 1 << 20]
)
def test_a_stored_frame_is_as_long_whatever_it_holds(size: int) -> None:
    for content in (NOISE[:size], bytes(size)):
        frame = stored(content)
        assert zstandard.ZstdDecompressor().decompress(frame) == content
        assert zstandard.get_frame_parameters(frame).content_size == size
        assert len(frame) == len(stored(b"x" * size))
        assert len(frame) <= size + 16 + 3 * (size >> 17)
        damaged = frame[:-5] + bytes([frame[-5] ^ 1]) + frame[-4:]
        if size:
            with pytest.raises(zstandard.ZstdError):
                zstandard.ZstdDecompressor().decompress(damaged)


def test_what_is_known_later_stands_where_it_belongs() -> None:
    known: list[bytes] = []

    def pieces() -> Iterable[Piece]:
        yield Piece(b"?????", STORED, later=lambda: known[0])
        yield Piece(b"between", 3)
        yield Piece(b"??", STORED, later=lambda: known[1])
        known.extend([b"first", b"2."])

    out = io.BytesIO()

    def rewrite(offset: int, data: bytes) -> None:
        out.seek(offset)
        out.write(data)

    FrameWriter(out, 2, rewrite).write(pieces(), lambda _: None)
    at_once = io.BytesIO()
    contents = ((b"first", STORED), (b"between", 3), (b"2.", STORED))
    FrameWriter(at_once).write([Piece(*each) for each in contents], lambda _: None)
    assert out.getvalue() == at_once.getvalue()
    assert content_of(out.getvalue()) == b"firstbetween2."
