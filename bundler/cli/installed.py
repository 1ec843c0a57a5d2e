"""`bundler installed`."""

from __future__ import annotations

import bundler
from bundler.cli.options import HfHome, InsightfaceRoot, Json, Root, TorchHome, roots_of
from bundler.cli.output import print_json


def installed(
    root: Root = None,
    hf_home: HfHome = None,
    torch_home: TorchHome = None,
    insightface_root: InsightfaceRoot = None,
    json_: Json = False,
) -> None:
    """Show what is installed here, by bundle, and whether it is whole.

    Looks at existence and size only; bundler verify, without a bundle, compares the content.
    """
    from bundler import installed_report

    inventory = bundler.installed(roots_of(root, hf_home, torch_home, insightface_root))
    if json_:
        print_json(inventory.to_json())
    else:
        print(installed_report.inventoried(inventory))
