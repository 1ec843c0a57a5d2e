"""`bundler inventory`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import bundler
from bundler.cli.options import HfHome, InsightfaceRoot, Json, Root, TorchHome, roots_of
from bundler.cli.output import print_json
from bundler.errors import amount
from bundler.wording import counted, printable


def inventory(
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The file to write, or - for standard output.",
            envvar="BUNDLER_INVENTORY",
        ),
    ] = "-",
    root: Root = None,
    hf_home: HfHome = None,
    torch_home: TorchHome = None,
    insightface_root: InsightfaceRoot = None,
    json_: Json = False,
) -> None:
    """Write down what is here by digest and size, for pack --since on the networked side.

    What bundler has unpacked and nobody has changed, and what huggingface_hub keeps under its
    sha256. No paths, no names. Carry the file over, and the next bundle leaves all that out.
    """
    from bundler.listing import inventory_bytes

    blobs = bundler.holdings(roots_of(root, hf_home, torch_home, insightface_root))
    content = inventory_bytes(blobs).decode() + "\n"
    if output == "-":
        print(content, end="")
        return
    from bundler.whole_file import write_text

    write_text(Path(output), content, "--output")
    size = sum(blob.size for blob in blobs)
    if json_:
        print_json({"path": output, "blobs": len(blobs), "size": size})
    else:
        print(printable(f"wrote {output}: {counted(len(blobs), 'blob')}, {amount(size)}"))
