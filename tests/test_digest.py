"""Digests as values, and a reader that never finishes on wrong bytes."""

from __future__ import annotations

import io
import pickle
from copy import deepcopy
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundler.digest import Blob, Digest, Readable, VerifiedReader
from bundler.errors import DamagedError

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"""sha256 of b"abc", from the standard that defines it (FIPS 180-4)."""


class Dribble:
    """A source that gives as few bytes at a time as `steps` says, over and over."""

    def __init__(self, content: bytes, steps: list[int]) -> None:
        self._content = io.BytesIO(content)
        self._steps = steps
        self._reads = 0
        self.taken = 0

    def read(self, size: int = -1, /) -> bytes:
        step = self._steps[self._reads % len(self._steps)]
        self._reads += 1
        data = self._content.read(step if size < 0 else min(size, step))
        self.taken += len(data)
        return data


steps = st.lists(st.integers(1, 9), min_size=1, max_size=5)
sizes = st.lists(st.integers(-1, 9).filter(bool), min_size=1, max_size=5)


def read_with(reader: Readable, sizes: list[int], parts: list[bytes]) -> bytes:
    """Everything `reader` gives when asked for `sizes`, again and again; also into `parts`."""
    for size in cycle(sizes):
        data = reader.read(size)
        if not data:
            break
        parts.append(data)
    return b"".join(parts)


def test_a_digest_is_the_sha256_of_the_content() -> None:
    assert Digest.of(b"abc") == Digest(ABC)


@given(st.binary())
def test_a_digest_reads_back_what_it_prints(content: bytes) -> None:
    digest = Digest.of(content)
    assert Digest.parse(str(digest)) == digest


def test_a_digest_is_a_value_that_can_be_copied() -> None:
    digest = Digest(ABC)
    assert {deepcopy(digest), pickle.loads(pickle.dumps(digest))} == {digest}
    assert eval(repr(digest)) == digest


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(ABC, id="no_algorithm"),
        pytest.param(f"sha256{ABC}", id="no_colon"),
        pytest.param(f"md5:{ABC}", id="another_algorithm"),
        pytest.param(f"SHA256:{ABC}", id="algorithm_in_capitals"),
        pytest.param(f"sha256:{ABC.upper()}", id="digits_in_capitals"),
        pytest.param(f"sha256:{ABC[:-1]}", id="a_digit_less"),
        pytest.param(f"sha256:{ABC}0", id="a_digit_more"),
        pytest.param(f"sha256:{ABC}\n", id="a_newline_at_the_end"),
        pytest.param(f"sha256: {ABC}", id="a_space_inside"),
        pytest.param(f"sha256:{ABC[:-1]}g", id="not_a_hex_digit"),
        pytest.param(f"sha256:{ABC[:-1]}\uff10", id="a_digit_of_another_script"),
        pytest.param("sha256:../../etc/passwd", id="a_path"),
    ],
)
def test_anything_else_is_no_digest(text: str) -> None:
    with pytest.raises(ValueError, match="64"):
        Digest.parse(text)


@given(st.binary())
def test_a_blob_is_a_digest_and_a_size(content: bytes) -> None:
    assert Blob.of(content) == Blob(Digest.of(content), len(content))


@given(st.binary(max_size=60), steps, sizes)
def test_right_bytes_come_through_whatever_the_sizes_of_reads(
    content: bytes, steps: list[int], sizes: list[int]
) -> None:
    reader = VerifiedReader(Dribble(content, steps), Blob.of(content), "it")
    assert read_with(reader, sizes, []) == content
    assert reader.read(1) == b""


@given(st.binary(max_size=60), steps)
def test_a_read_without_a_size_gives_everything(content: bytes, steps: list[int]) -> None:
    assert VerifiedReader(Dribble(content, steps), Blob.of(content), "it").read() == content
    assert VerifiedReader(Dribble(content, steps), Blob.of(content), "it").read() == content


@given(st.binary(max_size=40), st.binary(max_size=40), steps, sizes)
def test_no_read_hands_out_the_last_byte_of_wrong_content(
    promised: bytes, given: bytes, steps: list[int], sizes: list[int]
) -> None:
    blob = Blob.of(promised)
    reader = VerifiedReader(Dribble(given, steps), blob, "it")
    if given[: len(promised)] == promised:
        assert read_with(reader, sizes, []) == promised
        return
    parts: list[bytes] = []
    with pytest.raises(DamagedError):
        read_with(reader, sizes, parts)
    assert len(b"".join(parts)) < blob.size
    with pytest.raises(DamagedError):
        reader.read()


@pytest.mark.parametrize("position", [0, 1, 500, 998, 999])
def test_one_flipped_byte_is_damage(position: int) -> None:
    content = bytes(1000)
    flipped = bytearray(content)
    flipped[position] ^= 1
    reader = VerifiedReader(io.BytesIO(flipped), Blob.of(content), "the thing")
    with pytest.raises(DamagedError, match=r"^the thing [^\n]+$"):
        reader.read()


def test_a_source_that_ends_early_is_damage_that_tells_how_much_came() -> None:
    reader = VerifiedReader(io.BytesIO(bytes(1234)), Blob.of(bytes(5678)), "the thing")
    with pytest.raises(DamagedError, match=r"^the thing [^\n]*1,234[^\n]*5,678"):
        reader.read()


@given(st.binary(max_size=30), st.binary(min_size=1, max_size=30), steps, sizes)
def test_nothing_behind_the_blob_is_taken_from_the_source(
    content: bytes, behind: bytes, steps: list[int], sizes: list[int]
) -> None:
    source = Dribble(content + behind, steps)
    assert read_with(VerifiedReader(source, Blob.of(content), "it"), sizes, []) == content
    assert source.taken == len(content)


def test_an_empty_blob_is_checked_too() -> None:
    assert VerifiedReader(io.BytesIO(), Blob.of(b""), "it").read(1) == b""
    with pytest.raises(DamagedError):
        VerifiedReader(io.BytesIO(), Blob(Digest(ABC), 0), "it").read(1)


def test_asking_for_no_bytes_is_not_the_end() -> None:
    reader = VerifiedReader(io.BytesIO(b"abc"), Blob.of(b"abc"), "it")
    assert reader.read(0) == b""
    assert reader.read(2) == b"ab"
    assert reader.read(0) == b""
    assert reader.read() == b"c"
