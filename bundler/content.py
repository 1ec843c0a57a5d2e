"""Whether a file holds what it should: at a glance, or byte for byte."""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bundler.digest import COPY_SIZE, git_hash

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".gguf", ".h5", ".msgpack")
_ENDS = re.compile(rb"\"data_offsets\"\s*:\s*\[\s*\d+\s*,\s*(\d+)\s*\]")
_ZIP_END = b"PK\x05\x06"
_LONGEST_ZIP_END = 22 + 0xFFFF
"""Bytes from the end of a zip archive in which its last record begins."""
_POINTER = b"version https://git-lfs.github.com/spec/"


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


def flaw(path: Path, name: str) -> str | None:
    """What is plainly wrong with a file called `name`, seen by a few of its bytes; else None.

    Empty weights, those that were cut short, and what git-lfs leaves where it has not fetched them.
    Raises OSError.
    """
    if not name.endswith(_WEIGHTS):
        return None
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            return "is empty"
        head = file.read(len(_POINTER))
        if head == _POINTER:
            return "is a pointer of git-lfs, not the file itself"
        if name.endswith(".safetensors"):
            return None if size == _safetensors_size(path) else "was cut short"
        if head.startswith(b"PK\x03\x04"):
            file.seek(max(0, size - _LONGEST_ZIP_END))
            return None if _ends_a_zip(file.read(_LONGEST_ZIP_END)) else "was cut short"
    return None


def _ends_a_zip(tail: bytes) -> bool:
    """Whether an archive ends where its last record says (APPNOTE.TXT, 4.3.16): torch.save's."""
    start = tail.rfind(_ZIP_END)
    return start >= 0 and len(tail) == start + 22 + int.from_bytes(
        tail[start + 20 : start + 22], "little"
    )


def _safetensors_size(path: Path) -> int | None:
    """The bytes that a file of tensors has by its own account: its header says where each ends.

    github.com/huggingface/safetensors, README, "Format". None: it has no such header.
    """
    with open(path, "rb") as file:
        start = file.read(8)
        if len(start) < 8:
            return None
        length = struct.unpack("<Q", start)[0]
        if length > os.fstat(file.fileno()).st_size:
            return None
        header = file.read(length)
    ends = [int(end) for end in _ENDS.findall(header)]
    return 8 + int(length) + max(ends, default=0)
