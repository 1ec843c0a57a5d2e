"""What a pickled file would import when loaded: found by reading it, never by loading it.

The formats are those that torch.load takes (torch/serialization.py): a zip archive with pickles in
it, five pickles and raw storages after them (torch < 1.6), a tar archive (torch < 0.1.10), and
pickles as such. Whoever made the file may have meant to hide something: whatever cannot be read
for sure counts as something found.
"""

from __future__ import annotations

import os
import re
import struct
import tarfile
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import deque
from collections.abc import Container
from io import BytesIO
from pickletools import OpcodeInfo, genops, markobject, opcodes
from typing import BinaryIO, cast

from bundler.names import plain_text

MAX_READ = 64 << 20
"""Bytes of all pickles of one file, without strings too long to be names; models have 100 kB."""
MAX_READS = 1 << 22
"""Steps in which they are read, up to two for each opcode: some seconds, some 100 MB of memo."""
MAX_FOUND = 1000
MAX_DIRECTORY = 16 << 20
"""Bytes of a zip archive's directory: 100,000 tensors take less."""
_LONGEST_NAME = 1 << 16

_TOO_MUCH = "more pickled data than is searched"
_DAMAGED = "a pickle that cannot be read to its end"
_ZIP = "a zip archive that cannot be read for sure"
_TAR = "an old tar archive"
_TORCHSCRIPT = "TorchScript code"
_EXTENSION = "an extension code"
_RUN_TIME = "a name made at run time"

_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_CHECKSUM = re.compile(rb"[\x80\xff]|[-+0-7oO_\s\x1c-\x1f]*(\0|$)")
"""Where the header of a tar archive has a number (tarfile.py, nti), and few other files do."""
_NUMBER = re.compile(rb"\s*[-+]?(\d|\.\d|inf|nan)|\n|\0", re.IGNORECASE)
_QUOTED = re.compile(rb"(['\"]).*\1\n")
_OPCODES = {opcode.code.encode("latin-1") for opcode in opcodes}
_STRINGS = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_CALLS = {"REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "APPEND", "APPENDS"}
_CALLS |= {"SETITEM", "SETITEMS", "ADDITEMS"}  # whose object can be a global such as os.environ


def foreign_imports(content: BinaryIO, allowed: Container[str]) -> list[str]:
    """The globals (`module.name`) that loading the file would look up beyond `allowed`, sorted.

    Each comes once, as Python 3 names it (`builtins.eval`, not `__builtin__.eval`). Where a name
    is not to be had, as in a damaged pickle or in TorchScript, a few words stand for it. Empty for
    a file that is no pickle, and for one that torch.load(weights_only=True) takes, if `allowed` is
    what that allows. `content` is seekable; tensors are not read. Never raises for what it holds.
    """
    content.seek(0)
    head = content.read(tarfile.BLOCKSIZE)
    may_be_tar = _CHECKSUM.match(head, 148, 156)
    if head[:1] not in _OPCODES and not may_be_tar:
        return []  # As most texts: neither a pickle nor a zip archive begins so.
    search = _Search(allowed)
    if head.startswith(b"PK\x03\x04"):
        search.zip_archive(content)
    else:
        if may_be_tar:
            search.tar_archive(content)
        legacy = head.startswith(_LEGACY)
        search.pickles(content, certain=5 if legacy else 0, at_most=5 if legacy else None)
    return sorted(search.found)


class _TooMuch(Exception):
    """A bound is reached."""


class _Unread(bytes):
    """Stands for a string that was passed over: genops compares its length, and decodes nothing."""

    length: int

    def __len__(self) -> int:
        return self.length


class _Reader:
    """What genops reads from; the bounds hold for all that is opened one after the other."""

    def __init__(self) -> None:
        self.lines: deque[bytes] = deque(maxlen=2)
        self.position = 0
        self._code = b""
        self._bytes_left, self._reads_left = MAX_READ, MAX_READS

    def open(self, content: BinaryIO) -> None:
        self._content = content
        self._size = content.seek(0, os.SEEK_END)
        content.seek(0)

    def read(self, size: int) -> bytes:
        data = self._counted(self._content.read(size) if size <= _LONGEST_NAME else self.long(size))
        self._code = data if size == 1 else b""
        return data

    def readline(self) -> bytes:
        """A line, or what genops takes in its place: unpicklers take lines that it does not.

        Those in C stop at a zero byte, know `0x10`, and take a lone `I` for 0; those in Python do
        without the end of the last line. A name is not for genops, which would undo its escapes.
        """
        line = self._counted(self._content.readline(self._bytes_left + 1))
        self.lines.append(line)
        if self._code in (b"c", b"i"):
            return b"_\n"
        if self._code in (b"I", b"L", b"F") and _NUMBER.match(line):
            return b"0\n"
        if self._code == b"S" and _QUOTED.fullmatch(line):
            return b"''\n"
        if self._code in (b"p", b"g"):
            return line.partition(b"\0")[0].rstrip() + b"\n"
        return line

    def long(self, size: int) -> bytes:
        """A string that is no name is not read, so that none can fill the memory."""
        if size > self._size - self._content.tell():
            return b""  # not all of it is there: genops sees that it is too short
        self._content.seek(size, os.SEEK_CUR)
        string = _Unread()
        string.length = size
        return string

    def _counted(self, data: bytes) -> bytes:
        self.position += len(data)
        self._reads_left -= 1
        self._bytes_left -= 0 if isinstance(data, _Unread) else len(data)
        if self._bytes_left < 0 or self._reads_left < 0:
            raise _TooMuch
        return data


class _TarReader(_Reader):
    """What tarfile reads headers from."""

    def long(self, size: int) -> bytes:
        raise _TooMuch(size)

    def tell(self) -> int:
        return self._content.tell()

    def seek(self, offset: int) -> int:
        return self._content.seek(offset)


class _Stack:
    """How many objects the unpickler has above each mark; where they are too few, it fails."""

    def __init__(self) -> None:
        self._counts = [0]

    def apply(self, opcode: OpcodeInfo) -> None:
        """Raises IndexError where loading would fail."""
        taken = opcode.stack_before
        if markobject in taken:
            self._counts.pop()
            taken = taken[: taken.index(markobject)]
        elif opcode.name == "POP" and not self._counts[-1]:
            self._counts.pop()
            taken = []
        if opcode.name == "MARK":
            self._counts.append(0)
        elif len(taken) > self._counts[-1]:
            raise IndexError(opcode.name)
        else:
            self._counts[-1] += len(opcode.stack_after) - len(taken)


class _Frames:
    """Where frames end. pickle's C code loses its place, and goes on, if that is within an opcode.

    It then reads other opcodes than are here; so it does after a frame that goes on after STOP.
    """

    def __init__(self, position: int) -> None:
        self._position = self._end = position

    def apply(self, kind: str, argument: object, position: int) -> bool:
        """Whether an opcode that ends at `position` is well placed."""
        in_frame = self._position < self._end
        self._position = position
        if isinstance(argument, int) and kind == "FRAME":
            self._end = position + argument
            return not in_frame
        return not in_frame or position == self._end or (position < self._end and kind != "STOP")


class _Search:
    """Collects in `found` what is not in `allowed`."""

    def __init__(self, allowed: Container[str]) -> None:
        self.found: set[str] = set()
        self._allowed = allowed
        self._reader = _Reader()

    def zip_archive(self, content: BinaryIO) -> None:
        """The pickles among the members. Names differ in case: torch's reader ignores it."""
        try:
            _check_directory(content)
            with zipfile.ZipFile(content) as archive:
                members = [m for m in archive.infolist() if m.filename.lower().endswith(".pkl")]
                folders = (name.lower().split("/")[1:-1] for name in archive.namelist())
                if members and any(folder[:1] == ["code"] for folder in folders):
                    self.found.add(_TORCHSCRIPT)
                left = MAX_READ
                for member in members:
                    left -= max(member.file_size, member.compress_size)
                    if left < 0:
                        raise _TooMuch
                    # Only these two unpack no more at once than they are asked for.
                    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                        raise zipfile.BadZipFile(member.filename)
                    with archive.open(member) as file:
                        self.pickles(BytesIO(file.read(member.file_size)), certain=1)
        except _TooMuch:
            self.found.add(_TOO_MUCH)
        except Exception:  # zipfile raises nearly anything for a damaged archive
            self.found.add(_ZIP)

    def tar_archive(self, content: BinaryIO) -> None:
        """Whether it is torch's tar archive. Its loader takes members by exact name."""
        reader = _TarReader()
        reader.open(content)
        try:
            with tarfile.open(fileobj=cast(BinaryIO, reader), mode="r:") as archive:
                if any(member.name == "pickle" for member in archive):
                    self.found.add(_TAR)
        except tarfile.TarError:
            pass  # torch goes on as well, and tries to read pickles
        except Exception:  # as above
            self.found.add(_TAR)

    def pickles(self, content: BinaryIO, certain: int, at_most: int | None = None) -> None:
        """The pickles one after the other, until there is none; the first ones are for certain."""
        self._reader.open(content)
        number = 0
        while number != at_most and self._pickle(certain=number < certain):
            number += 1

    def _pickle(self, certain: bool) -> bool:
        """One pickle; whether it has an end.

        What is not `certain` to be one counts when it starts with a protocol and an opcode, when
        it ends as a pickle, or when it calls what it has looked up: before that, loading would
        have failed without harm. All other files break off sooner.
        """
        names: set[str] = set()
        ended = starts_with_protocol = False
        strings: tuple[str | None, str | None] = (None, None)  # on top of the stack, where known
        memo: dict[int, str | None] = {}
        stack, frames = _Stack(), _Frames(self._reader.position)
        try:
            for number, (opcode, argument, _) in enumerate(genops(cast(BinaryIO, self._reader))):
                kind = opcode.name
                if number == 0:
                    starts_with_protocol = kind == "PROTO" and int(argument or 0) <= 5
                certain = certain or (number == 1 and starts_with_protocol)
                if not frames.apply(kind, argument, self._reader.position):
                    certain = True
                    raise ValueError(kind)
                stack.apply(opcode)
                if kind in _STRINGS:
                    strings = (strings[1], argument)
                elif kind in _GETS:
                    strings = (strings[1], memo.get(argument or 0))
                elif kind in _PUTS:
                    memo[argument or 0] = strings[1]
                elif kind == "MEMOIZE":
                    memo[len(memo)] = strings[1]
                elif kind != "FRAME":
                    name = self._looked_up(kind, *strings)
                    if name is not None and name not in self._allowed:
                        names.add(plain_text(name[:200]))
                    certain = certain or (kind in _CALLS and bool(names))
                    strings = (None, None)
                if len(names) > MAX_FOUND:
                    raise _TooMuch
                ended = kind == "STOP"
        except _TooMuch:
            names.add(_TOO_MUCH)
            certain = True
        except Exception:  # genops raises nearly anything for what is no pickle
            names.add(_DAMAGED)
        if certain or ended:
            self.found |= names
        return ended

    def _looked_up(self, kind: str, module: str | None, name: str | None) -> str | None:
        """The name that an opcode looks up, if it does, in the last lines or on the stack."""
        if kind.startswith("EXT"):
            return _EXTENSION
        if kind in ("GLOBAL", "INST"):
            module, name = (line[:-1].decode() for line in self._reader.lines)
        elif kind != "STACK_GLOBAL":
            return None
        if module is None or name is None:
            return _RUN_TIME
        renamed = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        return ".".join(renamed)


def _check_directory(content: BinaryIO) -> None:
    """Raises BadZipFile if readers could disagree on where the directory of an archive is.

    It has to end where its end is announced, and that at the end of the file: zipfile looks for it
    before the announcement, torch's reader where the announcement says (APPNOTE.TXT 4.3.14 to 16).
    """
    end = content.seek(0, os.SEEK_END)
    content.seek(max(end - 98, 0))
    tail = content.read().rjust(98, b"\0")
    place = end - 22
    size, offset = struct.unpack_from("<II", tail, 88)
    if tail[56:60] == b"PK\x06\x07":
        place = end - 98
        size, offset = struct.unpack_from("<QQ", tail, 40)
        (announced,) = struct.unpack_from("<Q", tail, 64)
        if announced != place or not tail.startswith(b"PK\x06\x06"):
            raise zipfile.BadZipFile
    if tail[76:80] != b"PK\x05\x06" or tail[96:] != b"\0\0" or offset + size != place:
        raise zipfile.BadZipFile
    if size > MAX_DIRECTORY:
        raise _TooMuch
