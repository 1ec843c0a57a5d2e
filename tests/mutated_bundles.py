"""Bundles changed in their parts, as a strategy: what chance or malice could make of a good one.

A bundle is taken apart into the document in its manifest, the members of its tar, its frames and
its seek table. Changes fall on one of these layers or on several; each layer above is then made
again so that it agrees, or left as it was. So most changes get past the digests and checksums that
would stop a flipped byte at the first look.
"""

from __future__ import annotations

import json
from typing import Any

import zstandard
from bundle_builder import (
    END,
    Entry,
    blob,
    entry,
    frame,
    header,
    manifest_of,
    member,
    raw_frame,
    seek_table,
)
from hypothesis import strategies as st
from mutated_manifests import (
    DOCUMENTS,
    LARGE,
    POOL,
    VOCAB,
    at,
    change_document,
    manifest_text,
    places,
)


def contents_of(document: Any) -> list[bytes]:
    """The contents that the document names, as far as they are to be had, in their right order."""
    said = (at(document, path) for path in places(document) if path[-1] == "digest")
    absent = document.get("absent") if document.get("format_version") == 2 else None
    left_out = absent if isinstance(absent, list) else []
    digests = (
        digest.removeprefix("sha256:")
        for digest in said
        if isinstance(digest, str) and digest not in left_out
    )
    known = (POOL[digest] for digest in dict.fromkeys(digests) if digest in POOL)
    return sorted(known, key=lambda content: len(content) >= len(LARGE))


def change_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` with some bytes changed, gone, or added."""
    start = draw(st.integers(0, len(content)))
    size = draw(st.sampled_from([0, 1, 1, 4, 12, 512]))
    new = draw(
        st.sampled_from([b"", b"\0", b"\xff", bytes(512), content[-9:], content[:8]])
        | st.binary(max_size=4)
    )
    return content[:start] + new + content[start + size :]


def change_members(draw: st.DrawFn, members: list[bytes]) -> None:
    """Change the tar: its members, the zeros at its end included."""
    number = draw(st.integers(0, len(members) - 1))
    match draw(st.sampled_from(["bytes", "header", "content", "drop", "repeat", "swap", "add"])):
        case "bytes":
            members[number] = change_bytes(draw, members[number])
        case "header":
            name = draw(st.sampled_from(["manifest.json", "../evil", "blobs/sha256/" + "0" * 64]))
            size = draw(st.sampled_from([0, 1, len(members[number]) - 512, 8**11 - 1, 2**62]))
            kind = draw(st.sampled_from([b"0", b"2", b"5", b"x", b"S"]))
            members[number] = header(name, max(size, 0), kind) + members[number][512:]
        case "content" if len(members[number]) > 512:
            position = draw(st.integers(512, len(members[number]) - 1))
            changed = bytearray(members[number])
            changed[position] ^= draw(st.integers(1, 255))
            members[number] = bytes(changed)
        case "drop":
            del members[number]
        case "repeat":
            members.insert(draw(st.integers(0, len(members))), members[number])
        case "swap":
            other = draw(st.integers(0, len(members) - 1))
            members[number], members[other] = members[other], members[number]
        case _:
            new = draw(st.sampled_from([blob(b"more"), blob(VOCAB), END, bytes(512), b"\0"]))
            members.insert(draw(st.integers(0, len(members))), new)


def change_parts(draw: st.DrawFn, parts: list[bytes]) -> None:
    """Cut the content elsewhere, so that frames end elsewhere."""
    number = draw(st.integers(0, len(parts) - 1))
    if draw(st.booleans()) and number + 1 < len(parts):
        parts[number : number + 2] = [parts[number] + parts[number + 1]]
    else:
        position = draw(st.integers(0, len(parts[number])))
        parts[number : number + 1] = [parts[number][:position], parts[number][position:]]


BOMB = zstandard.ZstdCompressor().compress(bytes(64 << 20))
"""Two kilobytes that claim, and hold, 64 MiB."""
plain = zstandard.ZstdCompressor(write_checksum=False)
unsized = zstandard.ZstdCompressor(write_checksum=True, write_content_size=False)
far = zstandard.ZstdCompressor(
    compression_params=zstandard.ZstdCompressionParameters(window_log=27, write_checksum=True)
)


def change_frames(draw: st.DrawFn, frames: list[bytes], parts: list[bytes]) -> None:
    """Change how the content is compressed, with what the frames say of it."""
    number = draw(st.integers(0, len(frames) - 1))
    part = parts[number] if number < len(parts) else b""
    match draw(st.sampled_from(["bytes", "raw", "other", "drop", "repeat", "swap", "add"])):
        case "bytes":
            frames[number] = change_bytes(draw, frames[number])
        case "raw" if len(part) < 1 << 17:
            claimed = draw(st.sampled_from([None, 0, 1, len(part) + 1, 4 << 20, 2**32, 10**15]))
            frames[number] = raw_frame(part, claimed, draw(st.sampled_from([b"", b"x"])))
        case "other":
            frames[number] = draw(st.sampled_from([plain, unsized, far])).compress(part)
        case "drop":
            del frames[number]
        case "repeat":
            frames.insert(draw(st.integers(0, len(frames))), frames[number])
        case "swap":
            other = draw(st.integers(0, len(frames) - 1))
            frames[number], frames[other] = frames[other], frames[number]
        case _:
            skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc"
            new = draw(st.sampled_from([BOMB, frame(b""), frame(END), skippable, seek_table([])]))
            frames.insert(draw(st.integers(0, len(frames))), new)


def claimed_size(frame: bytes) -> int:
    """What a frame says that it holds; 0 if it says nothing."""
    try:
        return max(0, zstandard.frame_content_size(frame))
    except zstandard.ZstdError:
        return 0


def change_entries(draw: st.DrawFn, entries: list[Entry]) -> None:
    """Change what the seek table says of the frames."""
    number = draw(st.integers(0, len(entries) - 1))
    match draw(st.sampled_from(["field", "move", "drop", "repeat", "swap"])):
        case "field":
            fields = list(entries[number])
            fields[draw(st.integers(0, 2))] = draw(
                st.sampled_from([0, 1, 4 << 20, (4 << 20) + 1, 2**31, 2**32 - 1])
                | st.integers(0, 2000)
            )
            entries[number] = (fields[0], fields[1], fields[2])
        case "move" if number + 1 < len(entries):
            step = draw(st.sampled_from([(1, 0), (0, 1), (0, 512), (12, 1), (0, -512), (-1, 0)]))
            (c1, s1, x1), (c2, s2, x2) = entries[number : number + 2]
            moved = [(c1 - step[0], s1 - step[1], x1), (c2 + step[0], s2 + step[1], x2)]
            entries[number : number + 2] = [(c % 2**32, s % 2**32, x) for c, s, x in moved]
        case "repeat":
            entries.insert(draw(st.integers(0, len(entries))), entries[number])
        case "swap":
            other = draw(st.integers(0, len(entries) - 1))
            entries[number], entries[other] = entries[other], entries[number]
        case _:
            del entries[number]


def change_table(draw: st.DrawFn, entries: list[Entry]) -> bytes:
    """A seek table of these lines that says something else of itself."""
    match draw(st.sampled_from(["count", "length", "descriptor", "none", "twice"])):
        case "count":
            return seek_table(entries, count=draw(st.sampled_from([0, 1, 2**27, 2**32 - 1])))
        case "length":
            return seek_table(entries, length=draw(st.sampled_from([0, 9, 2**32 - 1])))
        case "descriptor":
            return seek_table(entries, descriptor=draw(st.sampled_from([0, 0x84, 0xFF])))
        case "none":
            return b""
    return seek_table(entries) * 2


LAYERS = ("document", "members", "parts", "frames", "entries", "table", "whole")


@st.composite
def mutated_bundles(draw: st.DrawFn, layers: tuple[str, ...] = LAYERS) -> bytes:
    """A bundle that was changed, in one of `layers` or in several, a few times."""
    changes = draw(st.lists(st.sampled_from(layers), min_size=1, max_size=4))

    def times(layer: str) -> range:
        return range(changes.count(layer))

    document = json.loads(manifest_of(*draw(st.sampled_from(DOCUMENTS))))
    for _ in times("document"):
        change_document(draw, document)
    manifest = manifest_text(draw, document) if times("document") else json.dumps(document).encode()
    members = [member("manifest.json", manifest), *map(blob, contents_of(document)), END]
    for _ in times("members"):
        if members:
            change_members(draw, members)
    parts = members or [b""]
    for _ in times("parts"):
        change_parts(draw, parts)
    parts = [part for part in parts if part] or [b"\0"]
    frames = [frame(part) for part in parts]
    entries = [entry(f, len(part)) for f, part in zip(frames, parts, strict=True)]
    for _ in times("frames"):
        if frames:
            change_frames(draw, frames, parts)
    if times("frames") and draw(st.booleans()):  # A table that agrees with them.
        entries = [entry(frame, min(claimed_size(frame), 2**32 - 1)) for frame in frames]
    for _ in times("entries"):
        if entries:
            change_entries(draw, entries)
    table = change_table(draw, entries) if times("table") else seek_table(entries)
    content = b"".join(frames) + table
    for _ in times("whole"):
        content = change_bytes(draw, content)
    return content
