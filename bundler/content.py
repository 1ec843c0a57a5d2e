"""Whether a file holds what it should: at a glance, or byte for byte."""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bundler.digest import COPY_SIZE, Blob, digest_of, git_hash

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".gguf", ".h5", ".msgpack")
_ENDS = re.compile(rb"\"data_offsets\"\s*:\s*\[\s*\d+\s*,\s*(\d{1,19})\s*\]")
_LONGEST_HEADER = 100_000_000
"""Bytes: safetensors' own limit, MAX_HEADER_SIZE in its tensor.rs."""
_ZIP_START, _ZIP_END = b"PK\x03\x04", b"PK\x05\x06"
_LONGEST_ZIP_END = 22 + 0xFFFF
"""Bytes from the end of a zip archive in which its last record begins."""
_POINTER = b"version https://git-lfs.github.com/spec/"
_LONGEST_POINTER = 1024
"""Bytes: git-lfs takes nothing longer for a pointer (docs/spec.md)."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What is known of a file's content: a sha256 or the beginning of one, or git's blob id."""

    sha256: str = ""
    git_sha1: str = ""


def differs(path: Path, promise: Promise, count: Callable[[int], None]) -> bool:
    """Whether the content of a file is other than promised; `count` gets the bytes of each step.

    Raises OSError.
    """
    with open(path, "rb", buffering=0) as file:
        sha256 = bool(promise.sha256)
        hash_ = hashlib.sha256() if sha256 else git_hash(os.fstat(file.fileno()).st_size)
        while data := file.read(COPY_SIZE):
            hash_.update(data)
            count(len(data))
    return not hash_.hexdigest().startswith(promise.sha256 if sha256 else promise.git_sha1)


def holds(path: Path, blob: Blob, count: Callable[[int], None] = lambda _: None) -> bool:
    """Whether a regular file is that blob; one of another size is not read.

    `count` gets the bytes of each step. Raises OSError.
    """
    if path.stat().st_size != blob.size:
        return False
    with open(path, "rb", buffering=0) as file:
        return digest_of(file, count) == blob.digest


def blob_of(path: Path) -> Blob:
    """The blob that a file is, all of which is read. Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        return Blob(digest_of(file, lambda _: None), os.fstat(file.fileno()).st_size)


def flaw(path: Path, name: str, size: int) -> str | None:
    """What is plainly wrong with a regular file called `name`, of `size` bytes; None: nothing.

    Seen by a few of its bytes: empty weights, those that were cut short, and what git-lfs leaves
    where it has not fetched them. Raises OSError.
    """
    is_weights = name.endswith(_WEIGHTS)
    if is_weights and not size:
        return "is empty"
    if not is_weights and not len(_POINTER) < size <= _LONGEST_POINTER:
        return None
    with open(path, "rb", buffering=0) as file:
        head = file.read(len(_POINTER))
        if head == _POINTER:
            return "is a pointer of git-lfs, not the file itself"
        if not is_weights:
            return None
        if name.endswith(".safetensors"):
            return _safetensors_flaw(file, head, size)
        if head.startswith(_ZIP_START):
            file.seek(max(0, size - _LONGEST_ZIP_END))
            return None if _ends_a_zip(file.read(_LONGEST_ZIP_END)) else "was cut short"
    return None


def _ends_a_zip(tail: bytes) -> bool:
    """Whether an archive ends where its last record says (APPNOTE.TXT, 4.3.16): torch.save's."""
    start = tail.rfind(_ZIP_END)
    return 0 <= start <= len(tail) - 22 and len(tail) == start + 22 + int.from_bytes(
        tail[start + 20 : start + 22], "little"
    )


def _safetensors_flaw(file: BinaryIO, head: bytes, size: int) -> str | None:
    """Whether a file of tensors has the size that it says itself: its header tells where each ends.

    github.com/huggingface/safetensors, README, "Format".
    """
    if size < 8:
        return "was cut short"
    length = struct.unpack("<Q", head[:8])[0]
    if length > min(size, _LONGEST_HEADER):
        return "was cut short, or is no file of tensors"
    file.seek(8)
    ends = _ENDS.finditer(file.read(length))
    whole = 8 + int(length) + max((int(end[1]) for end in ends), default=0)
    if size == whole:
        return None
    return "was cut short" if size < whole else "has more in it than its tensors"
