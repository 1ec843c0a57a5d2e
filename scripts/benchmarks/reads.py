"""What inspect, and unpack of one small model, read of a bundle of 20 GB."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.results import Row, limit, share
from benchmarks.runs import Settings, environment, note, program, shell
from benchmarks.sparse import kept_sparse, sparse

SMALL = 5_000_000
READING = "read,pread64,readv,preadv,preadv2,mmap,splice,sendfile,copy_file_range"
COMMANDS = {
    "inspect": 'bundler inspect "$BUNDLE"',
    "unpack --only": 'bundler unpack "$BUNDLE" --only file:small --root root --env offline.env',
}


def reads(settings: Settings, document: dict[str, Any]) -> list[Row]:
    """In bytes, as strace counts them. The bundle's content is not shrunk, as of real weights."""
    if shutil.which("strace") is None:
        read: dict[str, float | None] = dict.fromkeys(COMMANDS)
        size = None
    else:
        bundle = _bundle(settings)
        size = bundle.stat().st_size / 1e6
        read = {name: _read(settings, bundle, name) / 1e6 for name in COMMANDS}
        shutil.rmtree(bundle.parent)
    document["figures"]["reads"] = {"bundle": size, **read}
    inspect, only = COMMANDS
    return [
        limit(f"{inspect} of {settings.large / 1e9:g} GB, reads", read[inspect], "MB", 1),
        share(f"{only} of 5 MB, reads", read[only], "the bundle", size, "MB", 0.01),
    ]


def _bundle(settings: Settings) -> Path:
    """Large files and a small model in a bundle that is as large as they are."""
    large = sparse(settings)
    here = settings.folder / "here"
    (here / "small").mkdir(parents=True)
    (here / "small" / "model.bin").write_bytes(os.urandom(SMALL))
    env = environment(settings.folder / "home", {"LARGE": str(large)})
    with kept_sparse(here):
        shell('bundler pack "file:$LARGE" file:small -o shrunk --store store', here, env)
    bundle = here / "bundle.tar.zst"
    program("stored", here / "shrunk", bundle)
    return bundle


def _read(settings: Settings, bundle: Path, name: str) -> int:
    here = bundle.parent
    env = environment(settings.folder / "home", {"BUNDLE": str(bundle)})
    trace = f'strace -f -qq -e trace={READING} -P "$BUNDLE" -o trace {COMMANDS[name]}'
    shell(trace, here, env)
    read = sum(map(_bytes, (here / "trace").read_text(errors="replace").splitlines()))
    if not read:
        sys.exit(f"scripts/bench: strace saw nothing of {bundle} being read by {name}")
    note(f"{name} reads {read:,} bytes of {bundle.stat().st_size:,}")
    return read


def _bytes(call: str) -> int:
    """What one line of strace tells of; all of it where a file is mapped."""
    if mapped := re.search(r"\bmmap\(\w+, (\d+),", call):
        return int(mapped[1])
    done = re.search(r" = (\d+)$", call)
    return int(done[1]) if done else 0
