"""What is said to be here of an unfinished download is here, whatever happened before."""

from __future__ import annotations

import functools
import itertools
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bundler.partial import PART_SIZE, Partial

# Content is zeros but for NEAR bytes on each side of where parts meet: there pieces are written.
NEAR = 128
BOOT_SIZE = 36
SIZES = [
    0, 1, NEAR, PART_SIZE - 1, PART_SIZE, PART_SIZE + 1, 2 * PART_SIZE, 2 * PART_SIZE + NEAR,
]  # fmt: skip
OF_PARTS = [size for size in SIZES if size > PART_SIZE]

Counts = tuple[int, ...]
Piece = tuple[int, int]
"""Of the content, from one byte to before another."""


def content(start: int, stop: int) -> bytes:
    data = bytearray(stop - start)
    for border in range(start // PART_SIZE * PART_SIZE, stop + NEAR, PART_SIZE):
        for at in range(max(start, border - NEAR), min(stop, border + NEAR)):
            data[at - start] = 1 + at % 251  # 32 Mi is no multiple of 251: no two borders are alike
    return bytes(data)


def windows(start: int, stop: int) -> Iterator[Piece]:
    """Where content from `start` to `stop` may be anything but zeros."""
    for border in range(start // PART_SIZE * PART_SIZE, stop + NEAR, PART_SIZE):
        low, high = max(start, border - NEAR), min(stop, border + NEAR)
        if low < high:
            yield low, high


def lengths(size: int) -> list[int]:
    """Bytes of each part."""
    return [min(PART_SIZE, size - start) for start in range(0, size, PART_SIZE)] or [0]


@functools.cache
def _template(size: int, counts: Counts) -> dict[int, bytes]:
    """What is in the file of a Partial that has got so far: offset -> bytes, else holes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "partial")
        with Partial(path, size) as partial:
            for part, count in enumerate(counts):
                start = part * PART_SIZE
                assert partial.write(start, content(start, start + count)) == count
        if not any(counts):
            return {}  # Whether there is a file then is nobody's business.
        with open(path, "rb") as file:
            end = min(size, os.fstat(file.fileno()).st_size)
            found = {low: os.pread(file.fileno(), high - low, low) for low, high in windows(0, end)}
            # A byte that stands for how long the content's part is, then what is behind it.
            found[end - 1 if end else 0] = os.pread(file.fileno(), 1 << 16, end - 1 if end else 0)
        return found


@contextmanager
def leftover(size: int, counts: Counts) -> Iterator[Path]:
    """A file that an earlier process has left, with so many bytes of each part."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "partial")
        with open(path, "wb") as file:  # An empty one is a leftover, too.
            for offset, data in _template(size, counts).items():
                os.pwrite(file.fileno(), data, offset)
        yield path


def check(path: Path, size: int, counts: list[int]) -> None:
    """A new look at the file says `counts`, and exactly that is there."""
    partial = Partial(path, size)
    assert partial.here == sum(counts)
    full = [n == length for n, length in zip(counts, lengths(size), strict=True)]
    assert partial.missing == [part for part, is_full in enumerate(full) if not is_full]
    with open(path if any(counts) else os.devnull, "rb") as file:
        for part, (count, length) in enumerate(zip(counts, lengths(size), strict=True)):
            start = part * PART_SIZE
            assert partial.span(part) == (start + count, start + length)
            for low, high in windows(start, start + count):
                assert os.pread(file.fileno(), high - low, low) == content(low, high)


def counted(size: int, counts: list[int], piece: Piece) -> int:
    """How much of a piece goes on where a part has got to; `counts` is what is here then."""
    new = 0
    for part, length in enumerate(lengths(size)):
        first, end = part * PART_SIZE, part * PART_SIZE + length
        here, stop = first + counts[part], min(end, piece[1])
        if max(first, piece[0]) <= here < stop:
            counts[part] += stop - here
            new += stop - here
    return new


@st.composite
def begun(draw: st.DrawFn, sizes: list[int] = SIZES, *, at_least: int = 0) -> tuple[int, Counts]:
    """A size, and how far each part has got."""
    size = draw(st.sampled_from(sizes))
    counts = [
        draw(st.sampled_from(sorted({0, max(0, length - 9), length}))) for length in lengths(size)
    ]
    assume(sum(counts) >= at_least)
    return size, tuple(counts)


@st.composite
def near_borders(draw: st.DrawFn, size: int) -> Piece:
    """A piece of a content near where parts meet, and perhaps beyond the end."""
    borders = range(0, size + PART_SIZE, PART_SIZE)
    start = max(0, draw(st.sampled_from(borders)) + draw(st.integers(-40, 40)))
    return start, start + draw(st.integers(0, 60))


@given(data=st.data(), begun=begun())
def test_here_is_what_was_written_on_from_where_a_part_had_got_to(
    data: st.DataObject, begun: tuple[int, Counts]
) -> None:
    size, counts = begun[0], list(begun[1])
    with leftover(*begun) as path:
        check(path, size, counts)
        with ExitStack() as opened:
            partial = opened.enter_context(Partial(path, size))
            for _ in range(data.draw(st.integers(1, 8), "writes")):
                piece = data.draw(near_borders(size), "piece")
                assert partial.write(piece[0], content(*piece)) == counted(size, counts, piece)
                assert partial.here == sum(counts)
                # As another process would see it after a kill: nothing was closed.
                check(path, size, counts)
                if data.draw(st.booleans(), "begin anew"):
                    opened.close()
                    partial = opened.enter_context(Partial(path, size))
        check(path, size, counts)


@given(begun=begun(), pieces=st.permutations(range(12)))
def test_threads_that_write_the_same_bytes_and_others_lose_none(
    begun: tuple[int, Counts], pieces: list[int]
) -> None:
    size, counts = begun
    step = 5
    with leftover(size, counts) as path, ThreadPoolExecutor(4) as pool:
        with Partial(path, size) as partial:

            def bring(number: int) -> int:
                part = pieces[number] % partial.count
                start, stop = partial.span(part)
                assert stop is not None
                stop = min(stop, start + 2 * NEAR)
                return sum(
                    partial.write(at, content(at, min(stop, at + step)))
                    for at in range(start, stop, step)
                )

            new = sum(pool.map(bring, range(12)))
        assert new == partial.here - sum(counts)
        here = [partial.span(part)[0] - part * PART_SIZE for part in range(partial.count)]
        # Twelve turns: each part had some, and the first of them brought so much.
        for n, count, length in zip(here, counts, lengths(size), strict=True):
            assert n >= min(length, count + 2 * NEAR)
        check(path, size, here)


@given(begun=begun(OF_PARTS, at_least=1))
def test_after_another_boot_nothing_counts_that_was_not_synced(begun: tuple[int, Counts]) -> None:
    size, counts = begun
    with leftover(size, counts) as path:
        in_another_boot(path)
        partial = Partial(path, size)
        here = [partial.span(part)[0] - part * PART_SIZE for part in range(partial.count)]
        # A part that is whole may have been synced on the way; one that is not cannot have been.
        for n, count, length in zip(here, counts, lengths(size), strict=True):
            assert n in ((0, length) if count == length else (0,))


def test_after_another_boot_what_was_synced_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bundler.partial.SYNC_SECONDS", 0.0)
    size, path = 2 * PART_SIZE + 9, tmp_path / "partial"
    with Partial(path, size) as partial:
        partial.write(PART_SIZE - 9, b"not yet")
        partial.write(0, content(0, 9))
        partial.write(PART_SIZE, content(PART_SIZE, PART_SIZE + 7))
        partial.write(2 * PART_SIZE, content(2 * PART_SIZE, size))
        monkeypatch.setattr("bundler.partial.SYNC_SECONDS", 1e9)
        partial.write(9, content(9, 20))
    check(path, size, [20, 7, 9])
    in_another_boot(path)
    check(path, size, [9, 7, 9])


@given(begun=begun(OF_PARTS, at_least=1))
def test_a_boot_goes_on_with_what_it_has_written_itself(begun: tuple[int, Counts]) -> None:
    size, counts = begun
    with leftover(size, counts) as path:
        in_another_boot(path)
        with Partial(path, size) as partial:
            start, stop = partial.span(partial.count - 1)
            assert stop is not None
            end = min(stop, start + 20)
            partial.write(start, content(start, end))
        here = [partial.span(part)[0] - part * PART_SIZE for part in range(partial.count)]
        assert here[-1] == end - (partial.count - 1) * PART_SIZE
        check(path, size, here)


@given(begun=begun(OF_PARTS, at_least=1), data=st.data())
def test_a_table_of_another_length_counts_as_nothing(
    begun: tuple[int, Counts], data: st.DataObject
) -> None:
    size, counts = begun
    with leftover(size, counts) as path:
        whole = path.stat().st_size
        # Not just the content: that is what a finished download is.
        length = data.draw(st.sampled_from([0, 1, size - 1, *range(size + 1, whole), whole + 8]))
        os.truncate(path, length)
        assert Partial(path, size).here == 0
        with Partial(path, size) as partial:
            assert partial.write(0, content(0, 9)) == 9
        check(path, size, [9, *[0] * (partial.count - 1)])


@given(begun=begun(OF_PARTS, at_least=1), noise=st.binary(min_size=1))
def test_a_table_of_nonsense_never_counts_more_than_there_can_be(
    begun: tuple[int, Counts], noise: bytes
) -> None:
    size, counts = begun
    with leftover(size, counts) as path:
        room = path.stat().st_size - size - BOOT_SIZE
        with open(path, "r+b") as file:
            file.seek(size)
            file.write((noise * room)[:room])
        with Partial(path, size) as partial:
            for part, length in enumerate(lengths(size)):
                start, stop = partial.span(part)
                assert part * PART_SIZE <= start <= part * PART_SIZE + length == stop


def test_counts_beyond_a_part_count_as_nothing() -> None:
    size = 2 * PART_SIZE + 1
    with leftover(size, (7, 7, 1)) as path:
        with open(path, "r+b") as file:
            file.seek(size)
            table = file.read()
            file.seek(size)
            file.write(b"\xff" * (len(table) - BOOT_SIZE) + table[-BOOT_SIZE:])
        check(path, size, [0, 0, 0])


@given(begun=begun([size for size in SIZES if size <= PART_SIZE]), more=st.integers(1, 50))
def test_a_leftover_that_is_longer_than_the_content_counts_as_nothing(
    begun: tuple[int, Counts], more: int
) -> None:
    size, counts = begun
    with leftover(size, counts) as path:
        os.truncate(path, size + more)
        assert Partial(path, size).here == 0
        with Partial(path, size):
            assert path.stat().st_size == 0
        check(path, size, [0])


@pytest.mark.parametrize("size", [NEAR, PART_SIZE + 1, 2 * PART_SIZE + 1, 2 * PART_SIZE + 9])
@pytest.mark.parametrize("other", [1, PART_SIZE + 2, 2 * PART_SIZE + 2, 3 * PART_SIZE])
def test_a_leftover_of_a_content_of_another_size_is_none_of_this_one(size: int, other: int) -> None:
    with leftover(size, tuple(length // 2 for length in lengths(size))) as path:
        assert Partial(path, other).here == 0


@given(begun=begun())
def test_finished_it_is_the_content_and_nothing_else(begun: tuple[int, Counts]) -> None:
    size, counts = begun
    with leftover(size, counts) as path, Partial(path, size) as partial:
        for part in partial.missing:
            start, stop = partial.span(part)
            assert stop is not None
            partial.write(start, content(start, stop))
        assert (partial.missing, partial.here) == ([], size)
        partial.finish()
        assert path.stat().st_size == size
        # The process may be killed now, before anybody took the file: nothing is lost.
        check(path, size, lengths(size))


@given(begun=begun())
def test_cleared_it_has_nothing_and_goes_on(begun: tuple[int, Counts]) -> None:
    size, counts = begun
    with leftover(size, counts) as path:
        with Partial(path, size) as partial:
            partial.clear()
            check(path, size, [0] * partial.count)
            end = min(9, size)
            assert partial.write(0, content(0, end)) == end
        check(path, size, [end, *[0] * (partial.count - 1)])


class TestUnknownSize:
    @given(pieces=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60))))
    def test_what_goes_on_at_the_end_counts(self, pieces: list[Piece]) -> None:
        here = 0
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "partial")
            with Partial(path, None) as partial:
                assert (partial.count, partial.missing) == (1, [0])
                for start, length in pieces:
                    stop = start + length
                    new = stop - here if start <= here < stop else 0
                    assert partial.write(start, content(start, stop)) == new
                    here += new
                    assert path.read_bytes() == content(0, here)
                    assert Partial(path, None).here == here
                    assert partial.span(0) == (here, None)

    def test_it_is_as_long_as_it_gets(self, tmp_path: Path) -> None:
        size = PART_SIZE + NEAR
        with Partial(tmp_path / "partial", None) as partial:
            for start in range(0, size, 9_000_000):
                partial.write(start, content(start, min(size, start + 9_000_000)))
            partial.finish()
        assert (tmp_path / "partial").read_bytes() == content(0, size)


def test_a_stream_of_all_parts_fills_all(tmp_path: Path) -> None:
    size = 2 * PART_SIZE + 50
    with Partial(tmp_path / "partial", size) as partial:
        partial.write(PART_SIZE, content(PART_SIZE, PART_SIZE + 10_000_000))
        ends = [*range(0, size, 7_000_000), size + NEAR]
        new = sum(partial.write(a, content(a, b)) for a, b in itertools.pairwise(ends))
        assert new == size - 10_000_000
        partial.finish()
    assert (tmp_path / "partial").read_bytes() == content(0, size)


def test_nothing_is_made_before_it_is_opened(tmp_path: Path) -> None:
    assert Partial(tmp_path / "partial", 2 * PART_SIZE).here == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [None, 0, 5, PART_SIZE + 1])
def test_what_cannot_be_opened_raises_oserror(tmp_path: Path, size: int | None) -> None:
    (tmp_path / "partial").mkdir()
    with pytest.raises(OSError, match="directory"), Partial(tmp_path / "partial", size):
        pass


def in_another_boot(path: Path) -> None:
    """As after a power cut: the file names a boot that is over."""
    with open(path, "r+b") as file:
        file.seek(-BOOT_SIZE, os.SEEK_END)
        file.write(b"another boot".ljust(BOOT_SIZE))
