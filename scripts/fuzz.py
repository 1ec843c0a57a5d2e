"""Looks for inputs over which bundler breaks a promise.

Beginning with good inputs and with those that were found before, it changes them at random, and
goes on with those that lead to new places in the code (libFuzzer, by atheris). What it has learned
is kept in .fuzz/. What breaks a promise goes to tests/data/fuzz/<target>/, and scripts/test tries
it again from then on.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import atheris  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

with atheris.instrument_imports(include=["bundler", "pickletools", "tomllib", "zipfile"]):
    from fuzz_seeds import SEEDS
    from fuzz_targets import TARGETS
    from limits import little_memory
    from mutated_bundles import mutated_bundles
    from promises import check_unpack

MEMORY = 1 << 30
"""Bytes of address space that no input of some kilobytes may need."""
LARGEST = 1 << 16
"""Bytes of an input."""
SLOWEST = 300
"""Seconds that no input may take, however busy the machine is."""


def main() -> None:
    """Search each target for a while; the status is 1 if something was found."""
    parser = argparse.ArgumentParser(
        "scripts/fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)} (default: all)"
    )
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the changes (default 0: any)")
    parser.add_argument("--corpus", type=Path, default=ROOT / ".fuzz", metavar="FOLDER",
                        help="where to keep what was learned (default .fuzz)")  # fmt: skip
    parser.add_argument("--found", type=Path, default=ROOT / "tests/data/fuzz", metavar="FOLDER",
                        help="where to put what was found (default tests/data/fuzz)")  # fmt: skip
    arguments = parser.parse_args()
    unknown = set(arguments.targets) - TARGETS.keys()
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(TARGETS)}")
    faulty = []
    for target in arguments.targets or TARGETS:
        print(f"== {target}", file=sys.stderr, flush=True)
        child = os.fork()  # libFuzzer ends the process.
        if not child:
            search(target, arguments)
        if os.waitpid(child, 0)[1]:
            faulty.append(target)
    if faulty:
        sys.exit(f"scripts/fuzz: found something in {', '.join(faulty)}: see {arguments.found}")


def search(target: str, arguments: argparse.Namespace) -> None:
    """Search one target, and end the process."""
    corpus, found = arguments.corpus / target, arguments.found / target
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    if target == "unpack":
        check = changing(found)
    else:
        check = TARGETS[target]
        for seed in (*SEEDS[target](), *(path.read_bytes() for path in found.iterdir())):
            (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    options = {
        "seed": arguments.seed,
        "max_total_time": arguments.seconds,
        "max_len": LARGEST,
        "timeout": SLOWEST,
        "report_slow_units": SLOWEST,
        "rss_limit_mb": 0,  # Who asks for too much is refused: little_memory.
        "artifact_prefix": f"{found}/",
        "print_final_stats": 1,
    }
    words = [f"-{name}={value}" for name, value in options.items()]
    with little_memory(MEMORY):
        atheris.Setup([target, *words, str(corpus)], check)
        atheris.Fuzz()


def changing(found: Path) -> Callable[[bytes], object]:
    """A check whose input says how to change a bundle; the bundle is what is kept of it."""

    @settings(database=None, deadline=None)
    @given(mutated_bundles(), st.booleans(), st.booleans())
    def check(content: bytes, checkpoints: bool, code: bool) -> None:
        try:
            check_unpack(content, checkpoints=checkpoints, code=code)
        except Exception:
            (found / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)
            raise

    search: Callable[[bytes], object] = check.hypothesis.fuzz_one_input  # type: ignore[attr-defined]
    return search


main()
