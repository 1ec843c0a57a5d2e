"""`bundler env`."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Annotated

import typer

from bundler.cli.options import HfHome, InsightfaceRoot, Root, TorchHome, roots_of
from bundler.complaint import tell
from bundler.next_steps import caution, next_steps
from bundler.shells import EnvFormat, environment_text, undo_text


def env(
    form: Annotated[
        EnvFormat,
        typer.Option(
            "--format",
            help="Who reads it; sh is for bash, zsh, dash and fish, conda for its activate.d.",
            envvar="BUNDLER_ENV_FORMAT",
        ),
    ] = EnvFormat.SH,
    root: Root = None,
    hf_home: HfHome = None,
    torch_home: TorchHome = None,
    insightface_root: InsightfaceRoot = None,
    undo: Annotated[
        bool,
        typer.Option(
            "--undo", help="Print what removes the variables again.", envvar="BUNDLER_UNDO"
        ),
    ] = False,
) -> None:
    """Print what makes libraries load from the caches and ask no network.

    The text is that of offline.env: eval "$(bundler env)" sets this shell up. Where the caches are
    read-only, this user gets folders below ~/.cache for what the libraries write.
    """
    from bundler import report
    from bundler.read_only import link_datasets, with_own_places

    roots = with_own_places(roots_of(root, hf_home, torch_home, insightface_root))
    text = undo_text(form, roots) if undo else environment_text(form, roots)
    if not undo:
        link_datasets(roots)
    sys.stdout.buffer.write(os.fsencode(text))
    if not undo and _is_for_people():
        for note in (*report.read_only(roots), *caution(form)):
            tell(f"note: {note}")
        for line in next_steps(form, Path("FILE"), roots):
            tell(line)


def _is_for_people() -> bool:
    """Whether somebody is there to read notes, and does more with the text than evaluate it."""
    piped = stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)
    return sys.stderr.isatty() and not piped
