"""Little memory, and folders that cost no time: for tests that do one thing thousands of times."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
"""Where to make temporary folders; None is for where they usually are."""
_USED = Path("/proc/self/statm")


@contextmanager
def little_memory(size: int) -> Iterator[None]:
    """Whoever asks for `size` bytes more than there are in use now gets a MemoryError."""
    if not _USED.exists():
        yield
        return
    used = int(_USED.read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = used + size if hard == resource.RLIM_INFINITY else min(used + size, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
