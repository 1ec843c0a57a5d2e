"""`bundler run`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from bundler.cli.options import HfHome, Root, TorchHome, roots_of
from bundler.cli.output import tell_leak
from bundler.complaint import tell
from bundler.errors import RequestError


class CommandEnded(Exception):
    """A command that bundler ran has ended; its exit code is bundler's."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def run_command(
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="COMMAND",
            show_default=False,
            help="What to run, with its arguments; -- may stand before it.",
        ),
    ],
    root: Root = None,
    hf_home: HfHome = None,
    torch_home: TorchHome = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Cut the command off from every network but 127.0.0.1 of its own, and tell at "
            "the end which hosts it wanted. Linux.",
            envvar="BUNDLER_STRICT",
        ),
    ] = False,
) -> None:
    """Run a command with what offline.env sets.

    In Python programs torch.hub.load("owner/repo", …) without a branch takes the one that is
    there, and does not wait for GitHub. The exit code is the command's own, with 128 + n where
    signal n ended it.
    """
    from bundler.air_gap import become
    from bundler.read_only import offline

    if not command[0]:
        raise RequestError("the command is empty: name a program")
    environ = offline(os.environ, roots_of(root, hf_home, torch_home, None))
    if not strict:
        become(command, environ)

    from bundler.running import run_cut_off

    ran = run_cut_off(command, environ, tell_leak)

    from bundler import report

    for line in report.tried(ran.attempts, cut_off=ran.is_cut_off):
        tell(line)
    raise CommandEnded(ran.code)
