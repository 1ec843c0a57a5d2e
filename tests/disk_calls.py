"""The system calls by which a command changes the disk, one at a time: each may be the last.

with Commands(home) as commands:
    ran = commands.run("unpack", bundle, cwd=folder, decide=lambda call: KILL)

Each call waits in the kernel, before anything has changed, until `decide` has said what becomes of
it; meanwhile the disk can be looked at. All threads are seen, one call after the other. The command
is the real one, in a process of its own, forked from one that has imported bundler before: so it
takes hardly longer than in no process at all, and every boundary can be had in seconds.

Not seen: what is written through memory that is mapped (the table of large downloads alone), and
asynchronous calls, which Python does not make.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from command import Ran, command_environment

_READS = {0: "read", 17: "read", 19: "read", 8: "seek"}
_WRITE, _PWRITE = 1, 18
_WRITES = {_WRITE: "write", _PWRITE: "write", 20: "write", 296: "write", 328: "write"}
_OF_HANDLES = {
    **_READS,
    **_WRITES,
    **{40: "write", 77: "truncate", 285: "fallocate"},
    **{74: "fsync", 75: "fsync", 277: "fsync", 306: "syncfs"},
    **{91: "chmod", 93: "chown", 190: "setxattr", 199: "removexattr", 16: "clone"},
}
"""Calls whose first argument is a handle of what they change."""
_OF_PATHS = {
    **{2: "open", 85: "open", 83: "mkdir", 84: "rmdir", 87: "unlink", 133: "mknod"},
    **{76: "truncate", 90: "chmod", 92: "chown", 94: "chown", 132: "utime", 235: "utime"},
    **{188: "setxattr", 189: "setxattr", 197: "removexattr", 198: "removexattr"},
}
"""Those whose first is a path."""
_AT = {
    **{257: "open", 437: "open", 258: "mkdir", 259: "mknod", 260: "chown", 261: "utime"},
    **{263: "unlink", 268: "chmod", 452: "chmod", 280: "utime"},
}
"""Those whose first two are the handle of a folder and a path from there."""
_OTHERS: dict[int, tuple[str, tuple[tuple[int | None, int | None], ...]]] = {
    82: ("rename", ((None, 0), (None, 1))),
    264: ("rename", ((0, 1), (2, 3))),
    316: ("rename", ((0, 1), (2, 3))),
    86: ("link", ((None, 0), (None, 1))),
    265: ("link", ((0, 1), (2, 3))),
    88: ("symlink", ((None, 1),)),
    266: ("symlink", ((1, 2),)),
    326: ("write", ((2, None),)),
    275: ("write", ((2, None),)),
    162: ("sync", ()),
}
_NAMED = {
    **{number: (name, ((0, None),)) for number, name in _OF_HANDLES.items()},
    **{number: (name, ((None, 0),)) for number, name in _OF_PATHS.items()},
    **{number: (name, ((0, 1),)) for number, name in _AT.items()},
    **_OTHERS,
}
"""x86_64: what a call is named here, and which of its arguments are handle and path of what."""
NUMBERS = sorted(_NAMED)
SYNCS = ("fsync", "syncfs", "sync")
"""By which what was written comes to the disk; fdatasync and the like are `fsync` here."""
_FLAGS_OF_OPEN = {2: 1, 257: 2}
_CREAT, _OPENAT2, _UNLINKAT, _IOCTL = 85, 437, 263, 16
_FICLONE, _FICLONERANGE, _REMOVES_FOLDER = 0x40049409, 0x4020940D, 0x200
_HERE = 0xFFFFFF9C
_RECEIVE, _ANSWER = 0xC0502100, 0xC0182101
_QUESTION = struct.Struct("<QII iIQ 6Q")
_REPLY = struct.Struct("<QqiI")
_CONTINUE = 1


@dataclass(frozen=True)
class Call:
    """A call that is about to be made. `fsync` is fdatasync too, `open` makes or empties a file."""

    name: str
    paths: tuple[Path, ...]
    """What it concerns, absolute, with no link on the way; of `rename` and `link` old and new."""
    text: str = ""
    """What a symbolic link will say."""
    number: int = field(default=0, repr=False)
    thread: int = field(default=0, repr=False)
    arguments: tuple[int, ...] = field(default=(), repr=False)
    """As the kernel has them, all three."""

    @property
    def size(self) -> int:
        """Bytes to write, as far as `Tear` can write half of them."""
        return self.arguments[2] if self.number in (_WRITE, _PWRITE) else 0


@dataclass(frozen=True)
class Send:
    """Send a signal to the process, and let the call be made unless the process is dead by then."""

    signal: signal.Signals


@dataclass(frozen=True)
class Refuse:
    """Fail the call with a number of errno; with 0, let it pass for done without doing it."""

    errno: int


@dataclass(frozen=True)
class Tear:
    """Write the first half of what is to be written, and kill the process; nothing to others."""


Verdict = Send | Refuse | Tear | None
"""What becomes of a call; None: it is made."""
Decide = Callable[[Call], Verdict]
KILL = Send(signal.SIGKILL)
SKIP = Refuse(0)


class At:
    """Decides about the call of a number, counted from 0, alone, or about all from there on.

    `calls` are those up to it, or all if it is not reached: by default none. Of the others, those
    that wait for the disk are skipped: as long as the machine lives, nothing can tell.
    """

    def __init__(
        self, number: int = sys.maxsize, verdict: Verdict = None, *, lasting: bool = False
    ) -> None:
        self.calls: list[Call] = []
        self._number = number
        self._verdict = verdict
        self._lasting = lasting
        self._count = 0

    def __call__(self, call: Call) -> Verdict:
        number, self._count = self._count, self._count + 1
        if number <= self._number:
            self.calls.append(call)
        if number == self._number or (self._lasting and number > self._number):
            return self._verdict
        return SKIP if call.name in SYNCS else None


class Commands:
    """Runs commands of bundler, below folders of the tests' own. A context manager.

    `home` and `env` are those of all commands; `home` is where they run by default.
    """

    def __init__(self, home: Path, env: Mapping[str, str] | None = None) -> None:
        self._home = home
        self._env = {
            **command_environment(home),
            "PYTHONDONTWRITEBYTECODE": "1",
            **(env or {}),
        }

    def __enter__(self) -> Commands:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        program = Path(__file__).with_name("warm_bundler.py")
        self._process = subprocess.Popen(
            [sys.executable, str(program), str(theirs.fileno())],
            pass_fds=[theirs.fileno()], env=self._env, cwd=self._home,
        )  # fmt: skip
        theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self._process.wait(timeout=10)

    def run(
        self,
        *arguments: object,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        decide: Decide | None = None,
        reads: bool = False,
    ) -> Ran:
        """Run `bundler` with `arguments`; `decide` says what becomes of each call below `cwd`.

        It is asked about calls that read a file, or go to a place in one, only with `reads`.
        """
        if decide and (sys.platform, platform.machine()) != ("linux", "x86_64"):
            raise NotSupportedError("the numbers of calls are those of Linux on x86_64")
        cwd = cwd or self._home
        numbers = [n for n in NUMBERS if reads or n not in _READS] if decide else []
        request = {
            "arguments": [*map(str, arguments)],
            "cwd": [str(cwd)],
            "env": [f"{name}={value}" for name, value in (env or {}).items()],
            "numbers": [*map(str, numbers)],
        }
        with ExitStack() as stack:
            nothing = stack.enter_context(open(os.devnull))
            out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            streams = [nothing.fileno(), out.fileno(), err.fileno()]
            socket.send_fds(self._channel, [json.dumps(request).encode()], streams)
            if decide:
                said, handles, _, _ = socket.recv_fds(self._channel, 1 << 10, 1)
                if not handles:
                    self._channel.recv(1 << 10)
                    raise NotSupportedError(said.decode())
                try:
                    _attend(handles[0], int(said), decide, Path(os.path.realpath(cwd)))
                finally:
                    os.close(handles[0])
                    code = int(self._channel.recv(1 << 10))
            else:
                code = int(self._channel.recv(1 << 10))
            for stream in (out, err):
                stream.seek(0)
            raw = out.read()
            return Ran(code, raw.decode(errors="replace"), err.read().decode(), raw)


class NotSupportedError(Exception):
    """This system has no such listeners, or not for this user."""


def _attend(listener: int, process: int, decide: Decide, below: Path) -> None:
    """Decide about every call of a process and its threads, until it has ended."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    try:
        while poll.poll()[0][1] & select.POLLIN:
            question = bytearray(_QUESTION.size)
            try:
                fcntl.ioctl(listener, _RECEIVE, question)
            except OSError as error:
                if error.errno == errno.ENOENT:  # Its thread has died meanwhile.
                    continue
                raise
            number, thread, _, call, _, _, *arguments = _QUESTION.unpack(question)
            verdict = None
            with suppress(FileNotFoundError, ProcessLookupError):
                found = _call(thread, call, arguments)
                if found and (
                    not found.paths or any(below in (p, *p.parents) for p in found.paths)
                ):
                    verdict = decide(found)
                    if isinstance(verdict, Tear):
                        verdict = KILL if found.size > 1 else None
                        _write_half(found)
            if isinstance(verdict, Send):
                os.kill(process, verdict.signal)
                if verdict == KILL:
                    continue  # Unanswered, or the call might still be made.
            refused = isinstance(verdict, Refuse)
            error_number = -verdict.errno if isinstance(verdict, Refuse) else 0
            with suppress(FileNotFoundError):
                reply = _REPLY.pack(number, 0, error_number, 0 if refused else _CONTINUE)
                fcntl.ioctl(listener, _ANSWER, bytearray(reply))
    except BaseException:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        raise


def _concerns(call: Call, folder: Path) -> bool:
    return not call.paths or any(folder in (path, *path.parents) for path in call.paths)


def _call(thread: int, number: int, arguments: list[int]) -> Call | None:
    """What a thread asks for; None if that changes nothing on a disk."""
    name, named = _NAMED[number]
    if name == "open" and not _makes(thread, number, arguments):
        return None
    if name == "clone" and arguments[1] not in (_FICLONE, _FICLONERANGE):
        return None
    if number == _UNLINKAT and arguments[2] & _REMOVES_FOLDER:
        name = "rmdir"
    paths = []
    for handle_at, path_at in named:
        handle = _HERE if handle_at is None else arguments[handle_at] & 0xFFFFFFFF
        text = b"" if path_at is None else _text(thread, arguments[path_at])
        if not text:
            place = f"/proc/{thread}/fd/{handle}"
            if stat.S_IFMT(os.stat(place).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
                return None
            paths.append(Path(os.readlink(place)))
        else:
            folder = "cwd" if handle == _HERE else f"fd/{handle}"
            path = Path(os.readlink(f"/proc/{thread}/{folder}"), os.fsdecode(text))
            paths.append(Path(os.path.realpath(path.parent), path.name))
    says = os.fsdecode(_text(thread, arguments[0])) if name == "symlink" else ""
    return Call(name, tuple(paths), says, number, thread, tuple(arguments))


def _makes(thread: int, number: int, arguments: list[int]) -> bool:
    """Whether a call that opens a file may make or empty it."""
    if number == _CREAT:
        return True
    if number == _OPENAT2:
        flags = int.from_bytes(_memory(thread, arguments[2], 8), "little")
    else:
        flags = arguments[_FLAGS_OF_OPEN[number]]
    return bool(flags & (os.O_CREAT | os.O_TRUNC))


def _memory(thread: int, address: int, size: int) -> bytes:
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        return memory.read(size)


def _text(thread: int, address: int) -> bytes:
    if not address:
        return b""
    page = -address % 4096 or 4096
    text = _memory(thread, address, page)
    if b"\0" not in text:
        text += _memory(thread, address + page, 4096)
    return text.partition(b"\0")[0]


def _write_half(call: Call) -> None:
    """Write the first half of what a call would write, if it writes more than a byte."""
    if call.size < 2:
        return
    handle, address, size, offset, *_ = call.arguments
    data = _memory(call.thread, address, size // 2)
    if call.number == _WRITE:
        state = Path(f"/proc/{call.thread}/fdinfo/{handle}").read_text()
        offset = int(state.split()[1])
    with open(f"/proc/{call.thread}/fd/{handle}", "rb+", buffering=0) as file:
        file.seek(offset)
        file.write(data)
