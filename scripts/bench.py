"""How fast bundler is beside what users would do without it: ratios within one run, as a table.

`download`: a model from a hub on the loopback address into an empty cache, by `hf download` and by
`bundler pack`, up to where the bundle begins to be written. Both start a process of their own and
ask for the same files. bundler also compares every byte with its digest; hf does not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import bundler
from bundler.progress import Meter, Silent

ROOT = Path(__file__).parent.parent
MODEL = "bench/model"
SHARDS = 4
SMALL_FILES = 20


def main() -> None:
    """Run the benchmark, print a table, and write the figures as JSON if that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    parser.add_argument("--rounds", type=int, default=5, help="of each, interleaved (default 5)")
    parser.add_argument("--size", type=int, default=1024, help="MiB of the model (default 1024)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="bundler-bench-") as folder:
        figures = download(Path(folder), arguments.rounds, arguments.size << 20)
    machine = (
        f"{os.cpu_count()} processors, {platform.machine()}, Python {platform.python_version()}"
    )
    print(f"\n{machine}; page cache warm; medians of {arguments.rounds} rounds\n")
    print("| download | seconds | MB/s |\n| --- | --- | --- |")
    medians = {name: statistics.median(seconds) for name, seconds in figures.items()}
    for name, median in medians.items():
        print(f"| {name} | {median:.2f} | {arguments.size * 1.048576 / median:,.0f} |")
    ratio = medians["hf download"] / medians["bundler"]
    print(f"\nbundler is {ratio:.2f} times as fast as hf download")
    if arguments.json:
        document = {"machine": machine, "download": figures, "ratio": ratio}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


class _Plain(argparse.RawDescriptionHelpFormatter):
    """The description as it is written above."""


def download(folder: Path, rounds: int, size: int) -> dict[str, list[float]]:
    """Seconds of every round, by contestant, for a model of `size` bytes."""
    _make_model(folder / "hub" / MODEL, size)
    with _hub(folder / "hub") as endpoint:
        environment = {
            **os.environ,
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "BENCH_STORE": str(folder / "store"),
        }
        contestants: dict[str, list[str]] = {
            "hf download": ["hf", "download", MODEL],
            "bundler": [sys.executable, str(Path(__file__)), "--pack-until-written"],
        }
        figures: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(rounds):
            for name, command in contestants.items():
                for place in ("hf", "store"):
                    shutil.rmtree(folder / place, ignore_errors=True)
                os.sync()  # Nobody pays for what another has written.
                start = time.perf_counter()
                subprocess.run(command, env=environment, check=True, capture_output=True)
                figures[name].append(time.perf_counter() - start)
                print(f"round {number + 1}: {name} {figures[name][-1]:.2f} s", file=sys.stderr)
    return figures


def pack_until_written() -> None:
    """Be `bundler pack`, and end where everything is downloaded and compared."""

    class UntilWritten(Silent):
        def start(self, what: str, total: int, done: int = 0) -> Meter:
            if what == "writing the bundle":
                os._exit(0)
            return super().start(what, total, done)

    bundler.pack([MODEL], os.devnull, store=os.environ["BENCH_STORE"], progress=UntilWritten())
    sys.exit("nothing was written")


def _make_model(folder: Path, size: int) -> None:
    """Shards of random bytes, and some small files."""
    folder.mkdir(parents=True)
    for number in range(1, SHARDS + 1):
        with open(folder / f"model-{number:05}-of-{SHARDS:05}.safetensors", "wb") as file:
            for _ in range(size // SHARDS >> 20):
                file.write(os.urandom(1 << 20))
    for number in range(SMALL_FILES):
        (folder / f"config_{number}.json").write_text(json.dumps({"number": number}))


@contextmanager
def _hub(folder: Path) -> Iterator[str]:
    """The address of a hub that serves the models below `folder`, in a process of its own."""
    command = [sys.executable, str(ROOT / "tests" / "loopback_hub.py"), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hub:
        assert hub.stdout is not None
        assert hub.stdin is not None
        yield hub.stdout.readline().strip()
        hub.stdin.close()


if __name__ == "__main__":
    tasks: dict[str, Callable[[], None]] = {"--pack-until-written": pack_until_written}
    tasks.get(sys.argv[1] if len(sys.argv) > 1 else "", main)()
