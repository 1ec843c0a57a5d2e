"""The command line as users run it: in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What is not on the loopback address goes to a proxy that is not there (and no certificates are
# read, which takes longer than many a test).
NOWHERE = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1,localhost",
    "SSL_CERT_DIR": "/nowhere",
}


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str
    raw: bytes


def command_environment(home: Path) -> dict[str, str]:
    """The environment of a user at `home` who has set nothing up, and who sends no telemetry."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONWARNINGS": "error"}


def run(
    *arguments: object,
    home: Path,
    env: Mapping[str, str] | None = None,
    input: bytes | None = None,
    **options: Any,
) -> Ran:
    """Run `bundler` with `arguments`, in `home` unless `cwd` says otherwise."""
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with start(*arguments, home=home, env=env, **options) as process:
        out, err = process.communicate(input, timeout=120)
    return Ran(process.returncode, out.decode(errors="replace"), err.decode(), out)


def start(
    *arguments: object,
    home: Path,
    env: Mapping[str, str] | None = None,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """The same, under way."""
    options.setdefault("cwd", home)
    return subprocess.Popen(
        [sys.executable, "-m", "bundler", *map(str, arguments)],
        env={**command_environment(home), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def peak_memory(process: subprocess.Popen[bytes]) -> int:
    """The most bytes that a process has had in memory, by proc(5); waits for its end."""
    peak = 0
    while True:
        status = Path(f"/proc/{process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s*(\d+) kB", status)
        peak = max(peak, int(found[1]) * 1024 if found else 0)
        try:
            process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
        assert peak
        return peak
