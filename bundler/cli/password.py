"""The password of a private key: from a variable, or from whoever sits at the terminal."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bundler.errors import RequestError

_VARIABLE = "BUNDLER_KEY_PASSWORD"


def given_password() -> str | None:
    """The one that the variable has, if it has one."""
    return os.environ.get(_VARIABLE) or None


def password_of(key: Path) -> str:
    """The password of a key. Raises RequestError if nobody is there to ask."""
    given = given_password()
    if given is not None:
        return given
    if sys.stdin and sys.stdin.isatty():
        from getpass import getpass

        try:
            return getpass(f"password of {key}: ", sys.stderr)
        except EOFError:
            pass
    raise RequestError(
        f"{key} is protected by a password: set {_VARIABLE}, or run this in a terminal"
    )
