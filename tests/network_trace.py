"""What a program and its children ask of the network, native code included, as strace sees it.

tracer = tracing(folder / "calls")
subprocess.run([*tracer, "python", "program.py"])
assert network_calls(tracer) == []
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

# What reaches nobody. A socket alone sends nothing, and sendfile copies files: into a socket it
# could only after a connect. urllib3 binds one to ::1 to learn whether this
# machine has IPv6 (urllib3/util/connection.py). libc looks for nscd when it is asked for the name
# of a user, too; only where nscd runs would it be told anything.
_HARMLESS = re.compile(
    r"socket\(.*"
    r"|socketpair\(.*"
    r"|sendfile\(.*"
    r'|bind\(\d+, \{sa_family=AF_INET6, sin6_port=htons\(0\),.*"::1".*'
    r'|connect\(\d+, \{sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"\}, \d+\) = -1 ENOENT .*'
)


def tracing(log: Path) -> tuple[str, ...]:
    """What runs a command so that each of its threads adds its calls to a file of its own."""
    options = ("-ff", "--seccomp-bpf", "-qq", "-A", "-s", "200", "-e", "trace=%network")
    return ("strace", *options, "-e", "signal=none", "-o", str(log))


def network_calls(tracer: Sequence[str]) -> list[str]:
    """Every call but the harmless ones, of all commands that ran under this tracer.

    A lookup is one too: libc connects to a name server for it, or asks the kernel for addresses.
    """
    log = Path(tracer[-1])
    files = sorted(log.parent.glob(f"{log.name}.*"))
    assert files, "nothing ran under the tracer"
    calls = [line for file in files for line in file.read_text().splitlines()]
    return [call for call in calls if not _HARMLESS.fullmatch(call)]
