"""The list of a bundle's volumes: what a split bundle consists of, in a small file beside them.

It is a text that `sha256sum -c` takes, and a skippable frame of zstd, so that it may follow the
volumes in a stream: `cat bundle.tar.zst.* | tar --zstd -x`. FORMAT.md specifies it.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from bundler.digest import Blob, Digest
from bundler.errors import FormatError

MAX_VOLUMES = 1000
"""As many as three digits tell apart."""
MAX_LIST_SIZE = 1 << 20
"""Bytes; a thousand lines with the longest of names take less."""
LIST_SUFFIX = ".volumes"
_NUMBERED = re.compile(r"(?P<base>.+)\.(?P<number>[0-9]{3})", re.DOTALL)
_START = struct.Struct("<II")
_MAGIC = struct.pack("<I", 0x184D2A53)
"""One of sixteen by which zstd knows what it is to skip; in no text, since it has a control
character."""
_HEAD = re.compile(rb"\n# bundler volumes 1\n# bundle (sha256:[0-9a-f]{64})\n")
_LINE = re.compile(rb"# size ([1-9][0-9]{0,15})\n([0-9a-f]{64})  ([^/\\\x00-\x1f\x7f]{1,255})\n")


def volume_name(base: str, number: int) -> str:
    """The file name of a volume, counted from 0, of the bundle with the file name `base`."""
    return f"{base}.{number:03}"


def split_name(name: str) -> tuple[str, int] | None:
    """The name of the bundle, and the number of the volume that a file with this name may be."""
    found = _NUMBERED.fullmatch(name)
    return (found["base"], int(found["number"])) if found else None


@dataclass(frozen=True, slots=True)
class VolumeList:
    """The id of a bundle, and size and digest of each of its volumes, in their order."""

    bundle: Digest
    volumes: tuple[Blob, ...]

    def to_bytes(self, base: str) -> bytes:
        """The list as a file, beside volumes of the bundle with the file name `base`."""
        lines = [f"\n# bundler volumes 1\n# bundle {self.bundle}\n"]
        for number, volume in enumerate(self.volumes):
            name = volume_name(base, number)
            lines.append(f"# size {volume.size}\n{volume.digest.hex}  {name}\n")
        text = os.fsencode("".join(lines))
        return _MAGIC + struct.pack("<I", len(text)) + text

    @classmethod
    def from_bytes(cls, content: bytes) -> VolumeList:
        """Read a list; of the names in it, only the numbers count.

        Raises FormatError, of one line without the file's name, for what `to_bytes` cannot give.
        """
        if len(content) > MAX_LIST_SIZE:
            raise FormatError("is too long for a list of volumes")
        head = _HEAD.match(content, _START.size)
        if head is None or content[: _START.size] != _MAGIC + struct.pack(
            "<I", len(content) - _START.size
        ):
            raise FormatError("is not a list of volumes, or not all of one: copy it again")
        position = head.end()
        volumes: list[Blob] = []
        while position < len(content):
            line = _LINE.match(content, position)
            name = split_name(os.fsdecode(line[3])) if line else None
            if line is None or name is None or name[1] != len(volumes):
                raise FormatError(f"is damaged at volume {len(volumes) + 1}: copy it again")
            volumes.append(Blob(Digest(line[2].decode()), int(line[1])))
            position = line.end()
        if not volumes:
            raise FormatError("lists no volumes: copy it again")
        return cls(Digest.parse(head[1].decode()), tuple(volumes))


def size_of_list_at_end(tail: bytes) -> int:
    """How many of the last bytes of a file, of which `tail` is the end, are a list; 0 for none."""
    start = tail.rfind(_MAGIC)
    try:
        VolumeList.from_bytes(tail[max(start, 0) :])
    except FormatError:
        return 0
    return len(tail) - start


def is_plain_name(name: str) -> bool:
    """Whether a list can name volumes of the bundle `name`: sha256sum writes others otherwise."""
    line = b"# size 1\n" + b"0" * 64 + b"  " + os.fsencode(volume_name(name, 0)) + b"\n"
    return _LINE.fullmatch(line) is not None


def in_words(numbers: Sequence[int], base: str, count: int | None) -> str:
    """`volume 3 of 9 (bundle.tar.zst.002)`, for some volumes, counted from 0, of `count`."""
    shown = ", ".join(str(number + 1) for number in numbers[:10])
    more = f" and {len(numbers) - 10} more" if len(numbers) > 10 else ""
    of = "" if count is None else f" of {count}"
    names = ", ".join(volume_name(base, number) for number in numbers[:3])
    dots = ", …" if len(numbers) > 3 else ""
    return f"volume{'s' * (len(numbers) > 1)} {shown}{more}{of} ({names}{dots})"
