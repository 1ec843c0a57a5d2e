"""`bundler store`."""

from __future__ import annotations

from typing import Annotated

import typer

from bundler.cli.options import Json, Store, folder
from bundler.cli.output import print_json


def store(
    clear: Annotated[
        bool,
        typer.Option("--clear", help="Drop everything that is kept.", envvar="BUNDLER_CLEAR"),
    ] = False,
    store_: Store = None,
    json_: Json = False,
) -> None:
    """Show what pack keeps of its downloads, or drop it.

    What the libraries' caches have too takes no space of its own where the disk can share it.
    """
    from bundler import report
    from bundler.packing import open_store

    usage = open_store(folder(store_, "--store"), clear=clear)
    if json_:
        print_json(usage.to_json())
    else:
        print(report.kept(usage, cleared=clear))
