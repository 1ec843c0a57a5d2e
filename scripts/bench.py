"""How fast bundler is, and how small, beside what users would do without it.

Each figure is the wall time of a real command from start to end; medians of rounds that interleave
whoever is compared; the page cache is warm. Sections:

  weights    some GB of weights, against tar, zstd and a hash, and the machine's own ceiling
  others     the same, against restic, borg and casync
  small      100,000 files of 4 KB
  memory     the most that packing and unpacking take, for 1 GB, 100,000 files and 20 GB
  reads      what inspect and unpack --only read of a bundle of 20 GB
  start      --help and check, against a Python that does nothing
  download   a model from a hub on the loopback address, against hf download

Prints a table of what was measured and what should be; notes go to stderr. All sections take some
40 minutes with the defaults, and 13 GB on the disk, below TMPDIR; memory also wants the 20 GB to be
free, though it uses next to nothing of them. What is not installed (restic, borg, casync, zstd,
openssl, strace, eatmydata) is told and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.download import download
from benchmarks.machine import machine
from benchmarks.memory import memory
from benchmarks.reads import reads
from benchmarks.results import Row, table
from benchmarks.runs import Settings, environment, note, shell
from benchmarks.small import small
from benchmarks.start import start
from benchmarks.weights import others, weights

SECTIONS: dict[str, Callable[[Settings, dict[str, Any]], list[Row]]] = {
    "weights": weights,
    "others": others,
    "small": small,
    "memory": memory,
    "reads": reads,
    "start": start,
    "download": download,
}


def main() -> None:
    """Run the sections that are asked for, print a table, and write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; by default all"
    )
    for option, default, what in (
        ("rounds", 5, "of each, interleaved"),
        ("size", 2000, "MB of weights, and of the model that is downloaded"),
        ("files", 100_000, "how many small files"),
        ("large", 20.0, "GB of what is to be large, in files without content"),
    ):
        parser.add_argument(
            f"--{option}", type=type(default), default=default, help=f"{what} ({default:g})"
        )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - set(SECTIONS):
        parser.error(f"there is no section {', '.join(sorted(unknown))}: {', '.join(SECTIONS)}")
    # The commands are those of the environment that runs this.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with TemporaryDirectory(prefix="bundler-bench-") as folder:
        document = measured(arguments, Path(folder))
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


def measured(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything as plain values; the table is printed."""
    settings = Settings(
        folder,
        arguments.rounds,
        arguments.size * 10**6,
        arguments.files,
        int(arguments.large * 1e9),
    )
    document: dict[str, Any] = {"machine": machine(folder), "rounds": settings.rounds}
    document["figures"] = {}
    _warm_up(settings)
    rows: list[Row] = []
    for name in arguments.sections or SECTIONS:
        note(f"== {name}")
        rows += SECTIONS[name](settings, document)
    document["goals"] = [row.to_json() for row in rows]
    print(", ".join(f"{what}: {said}" for what, said in document["machine"].items()))
    print(f"Page cache warm, nothing left to write; medians of {settings.rounds} rounds.")
    if "weights" in document:
        print(f"Weights: {document['weights']}.")
    print(f"\n{table(rows)}")
    return document


def _warm_up(settings: Settings) -> None:
    """Let every command run once, so that Python has compiled what it imports."""
    (settings.folder / "first.txt").write_text("first")
    shell(
        "bundler pack file:first.txt -o first --store store; bundler verify first;"
        " bundler inspect first; bundler unpack first --root root; rm -r first store root",
        settings.folder,
        environment(settings.folder),
    )


class _Plain(argparse.RawDescriptionHelpFormatter):
    """The description as it is written above."""


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("scripts/bench: interrupted")
