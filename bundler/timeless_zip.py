"""Zip archives that are the same bytes whenever, wherever and by whomever they are written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

_UNIX = 3


def write_zip(path: Path, files: Mapping[str, bytes], before: bytes = b"") -> None:
    """Write `files`, by their names, to a zip archive that begins with `before`."""
    with open(path, "wb") as out:
        out.write(before)
        with ZipFile(out, "w") as archive:
            for name in sorted(files):
                entry = ZipInfo(name)  # Of the first of January 1980.
                entry.create_system = _UNIX
                entry.external_attr = 0o100644 << 16
                entry.compress_type = ZIP_DEFLATED
                archive.writestr(entry, files[name])


def files_below(folder: Path) -> dict[str, bytes]:
    """The files of a package's folder, by their paths from its parent on, but for bytecode."""
    return {
        path.relative_to(folder.parent).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
