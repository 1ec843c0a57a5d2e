"""The front end of unpack.pyz: unpack, inspect and verify with nothing but Python and some zstd.

The same modules do the work as for `bundler unpack`; only the arguments are read without a library.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import bundler
from bundler import outcome, report
from bundler.complaint import complain, tell
from bundler.environment import find_roots
from bundler.errors import EXIT_CODES, BundlerError, DamagedError, RequestError
from bundler.progress import Silent
from bundler.shells import ENV_FILE, EnvFormat

_HELP = {
    "unpack": "rebuild the caches that libraries read, and write offline.env",
    "inspect": "show what a bundle holds; reads only its beginning",
    "verify": "compare every digest of a bundle",
}
_OPTIONS = (
    ("digest", "sha256:…", "the id that pack printed: any other bundle is refused"),
    ("verify-key", "PUB.pem|DIR", "take a bundle only if this key, or one in a folder, has signed "
     "it; repeatable; needs the package cryptography"),
    ("signature", "FILE", "the signature to check; by default BUNDLE.sig"),
    ("root", "DIR", "all below DIR, and not where libraries look by default"),
    ("checkpoints", "DIR", "also lay models and single files out plainly, as DIR/NAME/ and so on"),
    ("only", "SPEC", "only this model; repeatable"),
    ("env", "FILE", f"the file to source afterwards; by default {ENV_FILE}"),
)  # fmt: skip
_FOR_ALL = 3
"""The rest is for unpack alone."""
_REPEATABLE = {"verify-key", "only"}


def run(arguments: list[str]) -> int:
    """Run the command line of unpack.pyz; its exit code. KeyboardInterrupt passes."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        given = _parser().parse_args(arguments or ["--help"])
        if "" in given.bundle:  # To a path it would be the folder one is in.
            raise RequestError("the name of the bundle is empty: name a file")
        source = sys.stdin.buffer if given.bundle == ["-"] else given.bundle
        _COMMANDS[given.command](given, source, _whom(given))
    except BundlerError as error:
        return complain(error)
    except SystemExit:  # argparse's way to end after --help
        return 0
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    codes = " · ".join(f"{code} {text}" for code, text in EXIT_CODES.items())
    parser = _Parser(
        prog="unpack.pyz",
        description="bundler for a machine on which it is not installed.",
        epilog=f"Exit codes: {codes}",
    )
    parser.add_argument("--version", action="version", version=f"bundler {bundler.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in _HELP.items():
        command = commands.add_parser(name, help=text, description=f"{text}.")
        command.add_argument(
            "bundle", metavar="BUNDLE", nargs="+",
            help="a bundle, the folders with its volumes, or - for standard input",
        )  # fmt: skip
        options = _OPTIONS if name == "unpack" else _OPTIONS[:_FOR_ALL]
        for option, metavar, text in options:
            command.add_argument(
                f"--{option}", metavar=metavar, help=f"{text} (env var: {_variable(option)})",
                action="append" if option in _REPEATABLE else "store",
            )  # fmt: skip
    return parser


def _variable(option: str) -> str:
    """The environment variable that may say the same."""
    words = "trusted keys" if option == "verify-key" else option
    return f"BUNDLER_{words.replace(' ', '_').upper()}"


def _value(given: argparse.Namespace, option: str) -> str | None:
    text: str | None = getattr(given, option)
    return text if text is not None else os.environ.get(_variable(option)) or None


def _values(given: argparse.Namespace, option: str) -> list[str]:
    typed: list[str] | None = getattr(given, option.replace("-", "_"))
    return typed or os.environ.get(_variable(option), "").split()


def _folder(given: argparse.Namespace, option: str) -> Path | None:
    text = _value(given, option)
    if text == "":
        raise RequestError(f"--{option} is empty: name a folder")
    return None if text is None else Path(text)


def _whom(given: argparse.Namespace) -> dict[str, Any]:
    """Which bundles are taken."""
    found: dict[str, Any] = {}
    digest, signature = _value(given, "digest"), _value(given, "signature")
    if digest is not None:
        from bundler.digest import Digest

        try:
            found["digest"] = Digest.parse(f"sha256:{digest.removeprefix('sha256:')}")
        except ValueError as error:
            raise RequestError(f"--digest: {error}") from None
    if keys := _values(given, "verify-key"):
        from bundler.trust import Trust

        found["trusted"] = Trust.read(keys, signature)
    elif signature is not None:
        raise RequestError("--signature needs the key to check it with: --verify-key PUB.pem")
    return found


class _Told(Silent):
    def say(self, text: str) -> None:
        tell(text)


def _unpack(given: argparse.Namespace, source: list[str] | BinaryIO, whom: dict[str, Any]) -> None:
    checkpoints = _folder(given, "checkpoints")
    result = bundler.unpack(
        source,
        roots=find_roots(root=_folder(given, "root"), checkpoints=checkpoints),
        only=_values(given, "only"),
        checkpoints=checkpoints is not None,
        env=_value(given, "env") or ENV_FILE,
        progress=_Told(),
        **whom,
    )
    for line in outcome.unpacked(result, EnvFormat.SH, done=True):
        print(line)


def _inspect(given: argparse.Namespace, source: list[str] | BinaryIO, whom: dict[str, Any]) -> None:
    inspection = bundler.inspect(source, **whom)
    print(report.inspected(inspection))
    if inspection.fault:
        raise DamagedError(f"{', '.join(given.bundle)}: {inspection.fault}")


def _verify(given: argparse.Namespace, source: list[str] | BinaryIO, whom: dict[str, Any]) -> None:
    result = bundler.verify(source, progress=_Told(), **whom)
    outcome.check_verified(result, ", ".join(given.bundle), outcome.advice(result))
    for line in outcome.verified(result):
        print(line)


_COMMANDS = {"unpack": _unpack, "inspect": _inspect, "verify": _verify}
