"""`bundler diff`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import bundler
from bundler.cli.asking import asker
from bundler.cli.options import Json
from bundler.cli.output import print_json

_HELP = "A bundle, a manifest (inspect --json) or an inventory."


def diff(
    before: Annotated[Path, typer.Argument(metavar="A", help=_HELP, show_default=False)],
    after: Annotated[Path, typer.Argument(metavar="B", help=_HELP, show_default=False)],
    json_: Json = False,
) -> None:
    """Tell what two bundles do not have in common: models, commits, files and bytes.

    Reads manifests alone. Of an inventory, which knows no names, only bytes are compared.
    """
    from bundler.comparison_report import differing

    ask = asker()
    ours, theirs = (bundler.read_listing(path, ask=ask) for path in (before, after))
    found = bundler.difference(ours, theirs)
    if json_:
        print_json(found.to_json())
    else:
        print(differing(found, str(before), str(after)))
