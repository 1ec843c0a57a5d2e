"""What can go wrong, sorted by what the user can do about it.

One class for each exit code of the command line. A message is one line that says what happened and
what to do; everything that is not a `BundlerError` is a fault of bundler itself and exits with 1.
"""

from __future__ import annotations

from collections.abc import Sequence


def shown(text: object, limit: int = 80) -> str:
    """`text` as it may stand in a message: quoted, nothing that a terminal would obey, not long."""
    quoted = repr(str(text))
    return quoted if len(quoted) <= limit else f"{quoted[:limit]}…"


def amount(size: int | None) -> str:
    """Bytes in the unit that a person would use, powers of 1,000 as on a stick's label."""
    if size is None:
        return "?"
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.3g} {unit}"


class BundlerError(Exception):
    """Base of all errors that are told to the user without a traceback."""

    exit_code: int = 1


class RequestError(BundlerError):
    """The request is wrong: a spec, an option or a combination of them."""

    exit_code = 2


class SetupError(RequestError):
    """What is set up here for the web is wrong, whatever is asked for: told once for all of it."""


class UnavailableError(BundlerError):
    """Not to be had: no such model, no access, no network."""

    exit_code = 3


class DamagedError(BundlerError):
    """Bytes are not what was promised: cut, flipped or replaced."""

    exit_code = 4


class FormatError(BundlerError):
    """Not a bundle, or one that this version cannot or will not read."""

    exit_code = 5


class TargetError(BundlerError):
    """The place to write to is in the way: space, permission, conflict."""

    exit_code = 6


class TrustError(BundlerError):
    """Not what the user said to trust."""

    exit_code = 7


class Faults(BundlerError):
    """Several faults of one request, told together; `note` is what else there is to say."""

    def __init__(self, errors: Sequence[BundlerError], note: str = "") -> None:
        super().__init__("\n".join(str(error) for error in errors))
        self.note = note
        self.errors = tuple(errors)
        self.exit_code = min(error.exit_code for error in errors)


INTERRUPTED = 130

EXIT_CODES = {
    0: "done",
    1: "a fault of bundler",
    RequestError.exit_code: "the request is wrong",
    UnavailableError.exit_code: "not to be had (no such model, no access, network)",
    DamagedError.exit_code: "bytes are not what was promised",
    FormatError.exit_code: "not a bundle, or one that this version cannot read",
    TargetError.exit_code: "the target is in the way (space, permission, conflict)",
    TrustError.exit_code: "not trusted",
    INTERRUPTED: "interrupted",
}
"""Every exit code of the command line and what it means."""
