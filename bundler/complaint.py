"""What goes wrong, said on stderr, and the exit code that goes with it."""

from __future__ import annotations

import sys

from bundler.errors import BundlerError, Faults
from bundler.wording import printable


def tell(message: str) -> None:
    """Say something on stderr, line by line."""
    lines = [f"bundler: {printable(line)}\n" for line in message.splitlines()]
    sys.stderr.write("".join(lines))  # At once: others may be telling something too.


def complain(error: BundlerError) -> int:
    """Say what went wrong; the exit code for it."""
    tell(str(error))
    if isinstance(error, Faults) and error.note:
        tell(error.note)
    return error.exit_code
