"""Running a command cut off from the network, and staying in front of it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bundler.air_gap import AirGap
from bundler.errors import RequestError

_PASSED_ON = {
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
}
_WAITED_FOR = {*_PASSED_ON, signal.SIGCHLD}


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended, and whom it wanted to reach."""

    code: int
    """Its exit code, or 128 + n where signal n ended it, as shells have it."""
    attempts: Mapping[str, int]
    """How often which host was wanted; see `AirGap.attempts`."""
    is_cut_off: bool
    """False where the system allows no namespace: then only Python programs were kept in."""


def run_cut_off(
    command: Sequence[str], environ: Mapping[str, str], on_fault: Callable[[str], object]
) -> Ran:
    """Run `command` in an air gap; what is sent to this process alone is passed on to it.

    `on_fault` gets, before it starts, the reason why there is no namespace. Raises RequestError.
    """
    if not hasattr(signal, "sigwaitinfo"):
        raise RequestError("--strict works on Linux only")
    # From here on, or one that comes early would end bundler and leave the command alone.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
    try:
        with AirGap(on_fault) as gap:
            process = gap.start(
                command,
                environ,
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before),
            )
            code = _exit_code(process)
            return Ran(code, gap.attempts(), gap.fault is None)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _exit_code(process: subprocess.Popen[bytes]) -> int:
    while process.poll() is None:
        received = signal.sigwaitinfo(_WAITED_FOR)
        # What a terminal sends comes from the kernel, which is a code above 0 (sigaction(2)), and
        # has reached the command as well.
        if received.si_signo != signal.SIGCHLD and received.si_code <= 0:
            process.send_signal(received.si_signo)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode
