"""Commands that run as on a machine without a network, and what they tried all the same.

Two things keep a command in: a network namespace, where the system allows one, and a hook that
every Python program imports (hook/sitecustomize.py). The hook also tells which hosts were wanted;
of all other programs the kernel counts how often.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bundler import namespace
from bundler.documents import MALFORMED
from bundler.errors import RequestError, shown
from bundler.lock import take_lock

HOOK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hook")
"""The folder in front of PYTHONPATH."""

UNKNOWN = "unknown hosts, from native code"
"""Stands for the hosts of attempts that only the kernel saw."""

_NOTES = "bundler-attempts-"
_NEW = 3600
"""Seconds, after which whoever makes such a file has surely locked it."""
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "ftp_proxy")
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


def hooked(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with the hook in front of PYTHONPATH."""
    rest = [folder for folder in environ.get("PYTHONPATH", "").split(os.pathsep) if folder != HOOK]
    path = os.pathsep.join([HOOK, *rest] if any(rest) else [HOOK])
    return {**environ, "PYTHONPATH": path}


def become(command: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Replace this process by `command`, with the hook, but with the network that there is.

    Raises RequestError if it cannot be run.
    """
    for number in _IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], list(command), hooked(environ))
    except OSError as error:
        raise _not_run(command, error) from None


class AirGap:
    """A place without a network for one command.

        with AirGap() as gap:
            process = gap.start(["python", "load.py"], environ, stdout=PIPE)
            out, _ = process.communicate()
            gap.attempts()      # {"huggingface.co:443": 3}

    A command that still runs when the block is left is killed. `on_fault` gets, before the command
    starts, what `fault` will be.
    """

    def __init__(self, on_fault: Callable[[str], object] = lambda _: None) -> None:
        self._on_fault = on_fault
        self.fault: str | None = None
        """Why there is no namespace: then only Python programs are kept off the network."""
        self._counters: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> AirGap:
        _remove_abandoned_notes()
        self._notes = tempfile.NamedTemporaryFile(prefix=_NOTES)
        take_lock(self._notes.fileno())
        return self

    def start(
        self, command: Sequence[str], environ: Mapping[str, str], **options: Any
    ) -> subprocess.Popen[bytes]:
        """Start `command`; `options` are those of Popen. No other thread may be running.

        Raises RequestError if it cannot be run.
        """
        ours, theirs = socket.socketpair()
        prepare = options.pop("preexec_fn", None)

        def enter() -> None:
            try:
                namespace.enter()
                socket.send_fds(theirs, [b"entered"], namespace.counters())
            except OSError as error:
                theirs.send((error.strerror or str(error)).encode())
                raise
            if prepare is not None:
                prepare()

        # A proxy would be all that a program asks for, whatever it wants behind it.
        direct = {name: environ[name] for name in environ if name.lower() not in _PROXIES}
        options["env"] = {**hooked(direct), "BUNDLER_AIR_GAP": self._notes.name}
        with ours, theirs:
            try:
                try:
                    self._process = subprocess.Popen(command, preexec_fn=enter, **options)
                    _, self._counters, _, _ = socket.recv_fds(ours, 100, 2)
                except subprocess.SubprocessError:  # What Popen makes of any error in `enter`.
                    theirs.close()
                    self.fault = ours.recv(1000).decode()
                    self._on_fault(self.fault)
                    self._process = subprocess.Popen(command, preexec_fn=prepare, **options)
            except OSError as error:
                raise _not_run(command, error) from None
        return self._process

    def attempts(self) -> dict[str, int]:
        """How often which host was wanted so far, "host:port" or UNKNOWN."""
        found: Counter[str] = Counter()
        self._notes.seek(0)
        for line in self._notes:
            # Programs may write what they like there.
            with contextlib.suppress(*MALFORMED):
                attempt = json.loads(line)
                host, port = str(attempt["host"]), attempt["port"]
                found[host if port is None else f"{host}:{port}"] += 1
        if unseen := namespace.attempts(self._counters):
            found[UNKNOWN] = unseen
        return dict(found)

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for file in self._counters:
            os.close(file)
        with contextlib.suppress(FileNotFoundError):  # A program may have emptied /tmp.
            self._notes.close()


def _remove_abandoned_notes() -> None:
    """Remove what killed runs of this user have left: what is not new, and locked by nobody."""
    for path in Path(tempfile.gettempdir()).glob(f"{_NOTES}*"):
        with contextlib.suppress(OSError):
            state = path.lstat()
            is_own = stat.S_ISREG(state.st_mode) and state.st_uid == os.geteuid()
            if is_own and state.st_mtime < time.time() - _NEW:
                with open(path, "rb") as file:
                    # Not take_lock: where there are no locks, it cannot be told what is in use.
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()


def _not_run(command: Sequence[str], error: OSError) -> RequestError:
    return RequestError(f"cannot run {shown(command[0])}: {error.strerror}")
