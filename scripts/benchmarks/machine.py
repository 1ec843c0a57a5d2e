"""Where it was measured."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

TOOLS = {
    "tar": ["tar", "--version"],
    "zstd": ["zstd", "--version"],
    "sha256sum": ["sha256sum", "--version"],
    "openssl": ["openssl", "version"],
    "restic": ["restic", "version"],
    "borg": ["borg", "--version"],
    "casync": ["casync", "--version"],
}


def machine(folder: Path) -> dict[str, str]:
    """What counts for the figures; `folder` is where they were measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    processor = _line("/proc/cpuinfo", "model name") or platform.processor()
    instructions = _line("/proc/cpuinfo", "flags") or _line("/proc/cpuinfo", "Features") or ""
    sha = {"sha_ni", "sha2"} & set(instructions.split())
    return {
        "processors": f"{os.cpu_count()} of {processor}, {platform.machine()}",
        "SHA extensions": "yes" if sha else "no",
        "memory": f"{memory / 2**30:.0f} GiB",
        "file system": _said(["findmnt", "-no", "FSTYPE", "-T", str(folder)]),
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **{package: version(package) for package in ("bundler", "zstandard")},
        **{tool: _version(command) for tool, command in TOOLS.items()},
    }


def _version(command: list[str]) -> str:
    found = re.search(r"[ v](\d+(\.\w+)*)(?![-\w])", _said(command))
    return found[1] if found else "not installed"


def _said(command: list[str]) -> str:
    with suppress(OSError):
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        return (ran.stdout.splitlines() or [""])[0]
    return ""


def _line(path: str, name: str) -> str | None:
    with suppress(OSError):
        found = re.search(rf"^{name}\s*:\s*(.+)$", Path(path).read_text(), re.MULTILINE)
        return found[1] if found else None
    return None
