"""The command line: arguments in, progress shown, errors to exit codes. No business here.

One module for each command, by its name.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Annotated

import typer

import bundler
from bundler.cli.check import check
from bundler.cli.diff import diff
from bundler.cli.env import env
from bundler.cli.inspect import inspect
from bundler.cli.installed import installed
from bundler.cli.inventory import inventory
from bundler.cli.keygen import keygen
from bundler.cli.pack import pack
from bundler.cli.remove import remove
from bundler.cli.run import CommandEnded, run_command
from bundler.cli.store import store
from bundler.cli.unpack import unpack
from bundler.cli.verify import verify
from bundler.complaint import complain, tell
from bundler.errors import EXIT_CODES, INTERRUPTED, BundlerError, RequestError

app = typer.Typer(
    help="Pack models into one bundle where there is a network; unpack it where there is none, "
    "and they load.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_EPILOG = "Exit codes: " + " · ".join(f"{code} {text}" for code, text in EXIT_CODES.items())

_COMMANDS: tuple[Callable[..., None], ...] = (
    pack, unpack, check, run_command, env, inspect, verify, diff, installed, inventory, remove,
    store, keygen,
)  # fmt: skip
for _command in _COMMANDS:
    _is_run = _command is run_command
    app.command(
        "run" if _is_run else _command.__name__,
        epilog=_EPILOG,
        # What follows the command's name is the command's, options too.
        context_settings={"allow_interspersed_args": False} if _is_run else None,
    )(_command)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"bundler {bundler.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def run(arguments: list[str]) -> int:
    """Run the command line with `arguments` and return its exit code; KeyboardInterrupt passes."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = app(arguments or ["--help"], standalone_mode=False)
    except CommandEnded as ended:
        return ended.code
    except BundlerError as error:
        return complain(error)
    except typer.TyperException as error:
        # What the option parser complains of, on one line; only its own classes can word it.
        worded = getattr(error, "format_message", error.__str__)()
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "bundler"
        tell(f"{' '.join(worded.split())} (see {command} --help)")
        return RequestError.exit_code
    except SystemExit:  # typer's way to pass on a BrokenPipeError
        raise BrokenPipeError from None
    if code == INTERRUPTED:  # typer's way to pass on a KeyboardInterrupt
        raise KeyboardInterrupt
    return 0
