"""The module compression.zstd of Python 3.14 for older ones: its backport, under its name."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def add_compression_zstd(folder: Path) -> None:
    """Have `compression.zstd` in a folder that is to be looked into for packages."""
    (folder / "compression").mkdir(parents=True)
    (folder / "compression" / "__init__.py").touch()
    (folder / "compression" / "zstd.py").write_text("from backports.zstd import *\n")
    backport = find_spec("backports.zstd")
    assert backport is not None
    assert backport.origin is not None
    (folder / "backports").mkdir()
    (folder / "backports" / "zstd").symlink_to(Path(backport.origin).parent)
