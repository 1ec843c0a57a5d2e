"""unpack.pyz: one file that unpacks, inspects and verifies where bundler is not installed."""

from __future__ import annotations

from pathlib import Path

from bundler.timeless_zip import files_below, write_zip

_START = b"""\
import sys

if sys.version_info < (3, 10):
    found = "%d.%d" % sys.version_info[:2]
    sys.stderr.write("unpack.pyz: Python 3.10 or newer is needed, this is " + found + "\\n")
    sys.exit(2)

from bundler.__main__ import main

main("bundler.standalone")
"""
"""Which any Python can read, to say what it is too old for."""


def write_unpacker(path: Path) -> None:
    """Write unpack.pyz to `path`: this package, without the command line that needs a library."""
    files = files_below(Path(__file__).parent)
    kept = {name: data for name, data in files.items() if not name.startswith("bundler/cli/")}
    write_zip(path, {"__main__.py": _START, **kept}, before=b"#!/usr/bin/env python3\n")
