"""`bundler remove`."""

from __future__ import annotations

from typing import Annotated

import typer

import bundler
from bundler.cli.options import DryRun, HfHome, InsightfaceRoot, Json, Root, TorchHome, roots_of
from bundler.cli.output import Bars, print_json


def remove(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="BUNDLE_ID|SPEC...",
            help="sha256:…, or 8 hex digits of it or more; or a model, by the words it was packed "
            "or is shown with.",
            show_default=False,
        ),
    ],
    root: Root = None,
    hf_home: HfHome = None,
    torch_home: TorchHome = None,
    insightface_root: InsightfaceRoot = None,
    dry_run: DryRun = False,
    json_: Json = False,
) -> None:
    """Take models off this machine: what nothing else uses, and only what bundler brought.

    Interrupted, it goes on where it was when the same command is given again.
    """
    from bundler import installed_report

    roots = roots_of(root, hf_home, torch_home, insightface_root)
    take_out = bundler.plan_remove if dry_run else bundler.remove
    removal = take_out(names, roots=roots, progress=Bars())
    if json_:
        print_json(removal.to_json())
        return
    for line in installed_report.removed(removal, done=not dry_run):
        print(line)
