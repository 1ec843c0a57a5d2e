"""Bundles made byte by byte, so that tests can make wrong ones. The format is bundler/FORMAT.md."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zstandard
from trees import timeless

from bundler.errors import DamagedError
from bundler.extraction import Outlet
from bundler.members import Member

BLOCK = 512
END = bytes(2 * BLOCK)
COMMIT_HASH = "0123456789abcdef0123456789abcdef01234567"
FILES: Mapping[str, bytes] = {
    "config.json": b'{"model_type": "made-up"}\n',
    "sub/vocab.txt": b"[UNK]\nhello\nworld\n",
    "weights.bin": bytes(range(256)) * 3,
}

Entry = tuple[int, int, int]
"""One line of a seek table: compressed size, content size, checksum."""


class Pipe(io.BytesIO):
    """Content that can be read once, from start to end."""

    def seekable(self) -> bool:
        return False

    def seek(self, offset: int, whence: int = 0, /) -> int:
        raise io.UnsupportedOperation("seek")

    def tell(self) -> int:
        raise io.UnsupportedOperation("tell")


class CountingFile(io.BytesIO):
    """A file that counts the bytes read from it."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


class Collected:
    """Keeps every blob in memory, in the order in which they are opened."""

    def __init__(self) -> None:
        self.contents: dict[Member, bytearray] = {}
        self.finished: list[Member] = []
        self.refused: dict[Member, DamagedError] = {}

    def open(self, member: Member) -> Outlet:
        self.contents[member] = bytearray()
        return CollectedBlob(self, member)

    def refuse(self, member: Member, error: DamagedError) -> None:
        self.refused[member] = error


class CollectedBlob:
    """One blob that is kept in memory."""

    def __init__(self, collected: Collected, member: Member) -> None:
        self.collected = collected
        self.member = member

    def write(self, data: memoryview) -> None:
        self.collected.contents[self.member] += data

    def close(self) -> None:
        self.collected.finished.append(self.member)

    def abandon(self) -> None:
        pass


def file_record(path: str, content: bytes, /, **fields: object) -> dict[str, Any]:
    """What a manifest says about one file; `fields` are put over it, and None takes one away."""
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return _without_none({"path": path, "size": len(content), "digest": digest, **fields})


def model_record(files: Mapping[str, bytes] = FILES, /, **fields: object) -> dict[str, Any]:
    """What a manifest says about one model; `fields` are put over it, and None takes one away."""
    record = {
        "source": "hf",
        "kind": "model",
        "name": "org/model",
        "revision": "main",
        "commit_hash": COMMIT_HASH,
        "layout": "hf-cache",
        "files": [file_record(path, content) for path, content in files.items()],
    }
    return _without_none(record | fields)


def _without_none(record: Mapping[str, object]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if value is not None}


def manifest_of(*models: Mapping[str, Any], **fields: Any) -> bytes:
    """A manifest of `models`; `fields` are put over its own."""
    return json.dumps({"format_version": 1, "snapshots": models, **fields}).encode()


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """A tar header of any kind."""
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = size, kind, link
    return member.tobuf(tarfile.GNU_FORMAT)


def padded(content: bytes) -> bytes:
    """`content`, filled up to whole blocks."""
    return content + bytes(-len(content) % BLOCK)


def member(name: str, content: bytes) -> bytes:
    """A whole member of a tar."""
    return header(name, len(content)) + padded(content)


def blob_name(content: bytes) -> str:
    """The name of a blob in the tar."""
    return f"blobs/sha256/{hashlib.sha256(content).hexdigest()}"


def blob(content: bytes) -> bytes:
    """A whole blob in the tar."""
    return member(blob_name(content), content)


def parts_of(manifest: bytes, contents: Sequence[bytes] = tuple(FILES.values())) -> list[bytes]:
    """The tar of a bundle, in the parts that become its frames."""
    return [member("manifest.json", manifest), *map(blob, contents), END]


def frame(content: bytes) -> bytes:
    """A zstd frame with a checksum, as a bundle has them."""
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)


def raw_frame(content: bytes, claimed_size: int | None = None, promised: bytes = b"") -> bytes:
    """A frame that holds `content`, less than 128 KiB, as it is.

    Its header can claim another size, and its checksum be that of the content `promised`.
    """
    size = len(content) if claimed_size is None else claimed_size
    size_of_8_bytes_and_checksum, window_of_1_mib = 0b1100_0100, 0b0101_0000
    head = struct.pack("<IBBQ", 0xFD2FB528, size_of_8_bytes_and_checksum, window_of_1_mib, size)
    last_raw_block = (1 | len(content) << 3).to_bytes(3, "little")
    return head + last_raw_block + content + frame(promised or content)[-4:]


def entry(frame: bytes, content_size: int) -> Entry:
    """The true line of a seek table for one frame."""
    return len(frame), content_size, int.from_bytes(frame[-4:], "little")


def seek_table(
    entries: Sequence[Entry],
    *,
    count: int | None = None,
    length: int | None = None,
    descriptor: int = 0x80,
) -> bytes:
    """A seek table that may lie about the number of its lines and about its length."""
    lines = b"".join(struct.pack("<III", *line) for line in entries)
    footer = struct.pack("<IBI", len(entries) if count is None else count, descriptor, 0x8F92EAB1)
    true_length = len(lines) + len(footer)
    head = struct.pack("<II", 0x184D2A5E, true_length if length is None else length)
    return head + lines + footer


def assembled(
    parts: Sequence[bytes], frames: Mapping[int, bytes] | None = None, table: bytes | None = None
) -> bytes:
    """A bundle of `parts`, a frame for each; `frames` and `table` replace the true ones."""
    true = [frame(part) for part in parts]
    written = [(frames or {}).get(number, true[number]) for number in range(len(parts))]
    if table is None:
        table = seek_table([entry(f, len(part)) for f, part in zip(written, parts, strict=True)])
    return b"".join(written) + table


def entries_of(parts: Sequence[bytes]) -> list[Entry]:
    """The true lines of the seek table that `assembled` writes."""
    return [entry(frame(part), len(part)) for part in parts]


def good_bundle() -> bytes:
    """A bundle without a fault."""
    return assembled(parts_of(manifest_of(model_record())))


def tree_of(folder: Path) -> dict[str, str | bytes]:
    """Every file and link below `folder`: the content of files, the text of links."""
    found: dict[str, str | bytes] = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = os.readlink(path)
        elif path.is_file():
            found[str(path.relative_to(folder))] = timeless(path.read_bytes())
    return found
