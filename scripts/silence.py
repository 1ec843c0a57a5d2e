"""What offline.env spares a machine that has no network, as a table.

The caches are complete, made by bundler; the machine is a network namespace without any interface,
so that every lookup of a name fails at once. Each model is loaded by its name, in a process of its
own, with no variable but HF_HOME, and under offline.env. Seconds are those of the call, once the
library is imported; lookups are calls of getaddrinfo in Python. All of it takes some 20 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import models
from loopback_hub import LoopbackHub
from target import UNDER_OFFLINE_ENV, Target, air_gap_command, carry

LIBRARIES = ("huggingface_hub", "transformers", "sentence-transformers")
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MADE = {"tiny-bert": "acme/tiny-bert", "tiny-clip": "acme/tiny-clip"}


def _loads() -> dict[str, tuple[str, str, tuple[str, ...]]]:
    """By what users call it: module, function, arguments."""
    bert, clip = MADE["tiny-bert"], MADE["tiny-clip"]
    return {
        "AutoModel": ("transformers", "AutoModel.from_pretrained", (bert,)),
        "AutoTokenizer": ("transformers", "AutoTokenizer.from_pretrained", (bert,)),
        "pipeline": ("transformers", "pipeline", ("fill-mask", bert)),
        "SentenceTransformer": ("sentence_transformers", "SentenceTransformer", (MINILM,)),
        "CLIPProcessor": ("transformers", "CLIPProcessor.from_pretrained", (clip,)),
    }


def main() -> None:
    """Measure, print a table, and write the figures as JSON if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="bundler-silence-") as folder:
        target = _target(Path(folder))
        settings: dict[str, tuple[list[str], dict[str, str]]] = {
            "HF_HOME alone": ([], {"HF_HOME": str(target.hub_cache.parent)}),
            "offline.env": ([*UNDER_OFFLINE_ENV], {}),
        }
        figures = {
            name: {load: _loaded(target, load, *setting) for load in _loads()}
            for name, setting in settings.items()
        }
    machine = (
        f"{os.cpu_count()} processors, {platform.machine()}, Python {platform.python_version()}"
    )
    libraries = {library: version(library) for library in LIBRARIES}
    print(f"\n{machine}; {', '.join(f'{name} {libraries[name]}' for name in libraries)}\n")
    columns = [f"{what}, {name}" for name in settings for what in ("seconds", "lookups")]
    print(f"| load | {' | '.join(columns)} |\n| --- | --- | --- | --- | --- |")
    for load in _loads():
        cells = [
            cell
            for name in settings
            for cell in (f"{figures[name][load]['seconds']:.2f}", figures[name][load]["lookups"])
        ]
        print(f"| {load} | {' | '.join(map(str, cells))} |")
    if arguments.json:
        document = {"machine": machine, "libraries": libraries, "figures": figures}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


class _Plain(argparse.RawDescriptionHelpFormatter):
    """The description as it is written above."""


def _target(folder: Path) -> Target:
    """A machine without a network, to which bundler brought all the models."""
    air_gap = air_gap_command()
    if air_gap is None:
        sys.exit("scripts/silence: this system refuses unshare -n")
    models.make(folder / "made", list(MADE))
    with LoopbackHub() as hub:
        for made, name in MADE.items():
            hub.add(name, models.files_of(folder / "made" / made))
        hub.add(MINILM, models.minilm())
        return carry(hub, [*MADE.values(), MINILM], folder, air_gap)


def _loaded(target: Target, load: str, before: list[str], variables: dict[str, str]) -> Any:
    """Seconds and lookups of one load."""
    process = subprocess.run(
        [*target.air_gap, *before, sys.executable, str(Path(__file__)), "--load", load],
        cwd=target.home,
        env={
            **{name: os.environ[name] for name in ("PATH", "PYTHONPATH")},
            "HOME": str(target.home),
            **variables,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        sys.exit(f"{load} failed:\n{process.stderr}")
    figures = json.loads(process.stdout.splitlines()[-1])
    print(f"{load} {'under offline.env' if before else 'alone'}: {figures}", file=sys.stderr)
    return figures


def measure(name: str) -> None:
    """Load one model in this process, and print what that took."""
    module, function, arguments = _loads()[name]
    call: Any = import_module(module)
    for part in function.split("."):
        call = getattr(call, part)
    lookups = 0

    def count(event: str, _: tuple[object, ...]) -> None:
        nonlocal lookups
        lookups += event == "socket.getaddrinfo"

    sys.addaudithook(count)
    start = time.perf_counter()
    call(*arguments)
    print(json.dumps({"seconds": time.perf_counter() - start, "lookups": lookups}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--load"]:
        measure(sys.argv[2])
    else:
        main()
