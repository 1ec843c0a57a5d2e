"""A process that has imported bundler, and runs commands in children that need not import it again.

Started by `disk_calls.Commands`, which talks to it through the socket named in its arguments. Who
asks for it gets a handle at which each call of `disk_calls.NUMBERS` waits for a decision: what the
kernel calls a seccomp listener (seccomp_unotify(2)).
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import socket
import struct
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from tempfile import TemporaryDirectory

import huggingface_hub.constants  # noqa: F401, what needs it imports it late
import typer.main

from bundler.__main__ import main as run_to_the_end
from bundler.cli import run

_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP, _SET_FILTER, _NEW_LISTENER = 317, 1, 8
_X86_64 = 0xC000003E
_ALLOW, _ASK = 0x7FFF0000, 0x7FC00000
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER_AT, _MACHINE_AT = 0, 4


class _Program(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def listener(numbers: list[int]) -> int:
    """A handle at which this process waits whenever it makes one of these calls. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    last = len(numbers)
    steps = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_JUMP_IF_EQUAL, 0, last + 1, _X86_64),
        (_LOAD, 0, 0, _NUMBER_AT),
        *((_JUMP_IF_EQUAL, last - at, 0, number) for at, number in enumerate(numbers)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ASK),
    ]
    code = b"".join(struct.pack("<HBBI", *step) for step in steps)
    program = _Program(len(steps), code)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    handle: int = libc.syscall(_SECCOMP, _SET_FILTER, _NEW_LISTENER, ctypes.byref(program))
    if handle < 0:
        raise OSError(ctypes.get_errno(), "no seccomp listener")
    return handle


def main() -> None:
    """Run one command after the other until nobody asks for more."""
    # Putting the command line together takes as long as unpacking something small.
    typer.main.get_command = cache(typer.main.get_command)
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        _import_all()
        gc.freeze()  # What the children do not touch need not be copied for them.
        _serve(channel)


def _import_all() -> None:
    """Have everything imported that commands import only when they need it."""
    with (
        TemporaryDirectory() as folder,
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
    ):
        bundle, root = f"{folder}/bundle", f"{folder}/root"
        codes = (
            run(["pack", f"file:{__file__}", "-o", bundle, "--store", f"{folder}/store"]),
            run(["unpack", bundle, "--root", root, "--checkpoints", root, "--env", f"{root}.env"]),
            run(["remove", "warm_bundler.py", "--root", root]),
        )
    assert codes == (0, 0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _serve(channel: socket.socket) -> None:
    while True:
        request, streams, _, _ = socket.recv_fds(channel, 1 << 16, 3)
        if not request:
            return
        child = os.fork()
        if not child:
            _run(json.loads(request), streams, channel)
        for stream in streams:
            os.close(stream)
        _, status = os.waitpid(child, 0)
        channel.send(str(os.waitstatus_to_exitcode(status)).encode())


def _run(request: dict[str, list[str]], streams: list[int], channel: socket.socket) -> None:
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(request["cwd"][0])
        for item in request["env"]:
            name, _, value = item.partition("=")
            os.environ[name] = value
        sys.argv = ["bundler", *request["arguments"]]
        numbers = [int(number) for number in request["numbers"]]
        if numbers:
            handle = listener(numbers)
            socket.send_fds(channel, [str(os.getpid()).encode()], [handle])
            os.close(handle)
        run_to_the_end()
    except OSError as error:
        channel.send(str(error).encode())
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
