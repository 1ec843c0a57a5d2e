"""A small bundle, damaged at every single byte: refused, or read as if nothing had happened."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import pairwise

import pytest
from bundle_builder import (
    END,
    Pipe,
    assembled,
    blob,
    manifest_of,
    member,
    model_record,
)
from fuzz_targets import contents_of
from promises import check_unpack

CONTENTS = [b"{}", b"weights" * 100, b""]
MODELS = [
    model_record({"config.json": CONTENTS[0], "w.bin": CONTENTS[1]}, commit_hash="1" * 40),
    model_record({"config.json": CONTENTS[0], "e": b""}, name="b", commit_hash="2" * 40),
]
MANIFEST = manifest_of(*MODELS)
TAR = b"".join([member("manifest.json", MANIFEST), *map(blob, CONTENTS), END])
CUTS = (600, 512 + -(-len(MANIFEST) // 512) * 512, 3200, 3600, len(TAR))
"""Where frames end: in the manifest, after it, twice in a blob, and with the tar."""
PARTS = [TAR[start:end] for start, end in pairwise((0, *CUTS))]
BUNDLE = assembled(PARTS)

Damage = Callable[[bytes, int], bytes]
"""From a content and a position in it to another content."""
DAMAGES: dict[str, Damage] = {
    "a flipped bit": lambda content, at: replaced(content, at, bytes([content[at] ^ 1])),
    "a flipped byte": lambda content, at: replaced(content, at, bytes([content[at] ^ 0xFF])),
    "a byte less": lambda content, at: replaced(content, at, b""),
    "a byte more": lambda content, at: replaced(content, at, content[at : at + 1] * 2),
    "cut": lambda content, at: content[:at],
}


def replaced(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + 1 :]


def test_the_bundle_has_what_can_be_damaged() -> None:
    assert contents_of(io.BytesIO(BUNDLE)) == (MANIFEST, CONTENTS)
    in_blob = [cut for cut in CUTS if TAR.index(b"weights") < cut < TAR.rindex(b"weights")]
    assert len(in_blob) == 2
    assert len(BUNDLE) < 2000


@pytest.mark.parametrize("open_source", [io.BytesIO, Pipe], ids=["file", "pipe"])
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_at_any_byte_is_found_or_does_no_harm(
    damage: Damage, open_source: Callable[[bytes], io.BytesIO]
) -> None:
    right = (MANIFEST, CONTENTS)
    for at in range(len(BUNDLE)):
        assert contents_of(open_source(damage(BUNDLE, at))) in (None, right), f"byte {at}"


def test_a_file_that_lost_its_end_is_never_whole() -> None:
    for size in range(len(BUNDLE)):
        assert contents_of(io.BytesIO(BUNDLE[:size])) is None, f"{size} bytes"


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_unpacking_after_damage_leaves_nothing_or_what_is_right(damage: Damage) -> None:
    for at in range(0, len(BUNDLE), 17):
        check_unpack(damage(BUNDLE, at))
