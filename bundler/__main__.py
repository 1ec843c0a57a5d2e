"""`python -m bundler`, and the command of that name: a start and an end that can be interrupted."""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

from bundler.errors import INTERRUPTED

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""glibc's malloc.h."""


def main(command_line: str = "bundler.cli") -> NoReturn:
    """Run a command line, which is the `run` of that module, and exit with its code."""
    # Streams that were closed by whoever started this, and names that a terminal cannot show, are
    # no reasons to fail.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        # Files are many, each of them some objects, and none goes round in circles: to look for
        # such as often as Python does takes an eighth of the time.
        gc.set_threshold(100_000)
        if sys.argv[1:2] in (["pack"], ["unpack"], ["verify"]):
            _keep_what_pieces_leave()
        # Here, since even importing takes long enough for somebody to think better of it.
        code = import_module(command_line).run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        goes_on = sys.argv[1:2] in (["pack"], ["unpack"], ["remove"])
        more = "; the same command goes on from here" if goes_on else ""
        print(f"bundler: interrupted{more}", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        code = 0  # Whoever reads has seen enough.
    except OSError as error:
        print(f"bundler: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        code = 6
    sys.stderr.flush()
    # Not sys.exit, which waits for threads, and these for a network that may not answer.
    os._exit(code)


def _keep_what_pieces_leave() -> None:
    """Let the memory of one piece of a large file be that of the next.

    glibc gives it back to the system, which clears it each time, until something larger was freed;
    then it keeps all that is smaller, in each thread by itself: mallopt(3), M_MMAP_THRESHOLD. So it
    is told how large pieces are, and what few things are larger.
    """
    with suppress(ImportError, AttributeError):  # Not every system has it.
        from ctypes import CDLL

        mallopt = CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 2 << 20)
        mallopt(_M_TRIM_THRESHOLD, 8 << 20)


if __name__ == "__main__":
    main()
