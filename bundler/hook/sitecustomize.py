"""What every Python program imports first under `bundler run`: its folder leads PYTHONPATH.

Runs in any Python from 3.8 on, whatever is installed there, and imports nothing before a program
asks for a network: a program that never does pays for one function call at each audit event.

Always: torch.hub's look-up of a default branch fails at once. It has no timeout, and no variable
stops it; torch then takes the branch that is in its cache (torch/hub.py, _parse_repo_info).
With BUNDLER_AIR_GAP, a file: nothing but this machine is reached, and what was tried is added to
that file, a line of JSON each.
"""

from __future__ import annotations

import os
import sys

_ATTEMPTS = os.environ.get("BUNDLER_AIR_GAP")
_ENOUGH = 1 << 20  # bytes of attempts; a program that tries for ever must not fill the disk
_THIS_MACHINE = ("", "localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    """The audit hook (https://docs.python.org/3/library/audit_events.html has the arguments)."""
    if event == "urllib.Request":
        refusal = _refused_request(arguments)
    elif _ATTEMPTS and event.startswith("socket."):
        refusal = _refused_call(event, arguments)
    else:
        return
    if refusal is not None:
        raise refusal


def _refused_request(arguments: tuple[object, ...]) -> Exception | None:
    try:
        url = str(arguments[0])
        start, end = "https://github.com/", "/tree/main/"
        if not (url.startswith(start) and url.endswith(end) and url.count("/") == 7):
            return None
        from urllib.error import URLError

        _note("github.com", 443)
        return URLError("bundler run answers no look-up of a default branch")
    except Exception:
        return None


def _refused_call(event: str, arguments: tuple[object, ...]) -> Exception | None:
    """What the call would raise on a machine without a network; None lets it pass."""
    try:
        import errno
        import socket

        if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
            host, port = arguments[0], arguments[1] if len(arguments) > 1 else None
            reverse = event == "socket.gethostbyaddr"
            if host is None or _is_here(host, look_up=not reverse):
                return None
            _note(host, port)
            if reverse:
                return socket.herror(2, "Host name lookup failure: cut off by bundler")
            words = "Temporary failure in name resolution: cut off by bundler"
            return socket.gaierror(socket.EAI_AGAIN, words)
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            family, address = getattr(arguments[0], "family", None), arguments[1]
            if family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(address, tuple):
                return None
            if _is_here(address[0]):
                return None
            _note(*address[:2])
            return OSError(errno.ENETUNREACH, "Network is unreachable: cut off by bundler")
    except Exception:
        pass
    return None


def _is_here(host: object, look_up: bool = False) -> bool:
    """Whether this host is this machine; to `look_up` an address reaches nobody either."""
    import socket

    name = host.decode() if isinstance(host, (bytes, bytearray)) else str(host)
    try:
        address = socket.inet_aton(name)
    except OSError:
        try:
            address = socket.inet_pton(socket.AF_INET6, name.partition("%")[0])
        except OSError:
            name = name.rstrip(".").lower()
            # Its own name is in /etc/hosts; torch.distributed and others look it up.
            here = name in _THIS_MACHINE or name == socket.gethostname().lower()
            return here or name.endswith(".localhost")
        if address[:12] != bytes(10) + b"\xff\xff":
            return look_up or (address[:15] == bytes(15) and address[15] < 2)
        address = address[12:]
    return look_up or address[0] == 127 or address == bytes(4)


def _note(host: object, port: object) -> None:
    """Add a line to the file of attempts; one that cannot be written is no reason to fail."""
    if not _ATTEMPTS:
        return
    try:
        import json

        name = host.decode() if isinstance(host, (bytes, bytearray)) else str(host)
        attempt = {"host": name, "port": port if isinstance(port, (int, str)) else None}
        file = os.open(_ATTEMPTS, os.O_WRONLY | os.O_APPEND)
        try:
            if os.fstat(file).st_size < _ENOUGH:
                os.write(file, json.dumps(attempt).encode() + b"\n")
        finally:
            os.close(file)
    except Exception:
        pass


def _pass_on() -> None:
    """Import the sitecustomize that there would be without this one: Debian and others have one."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != here]
    this = sys.modules.pop("sitecustomize")
    try:
        __import__("sitecustomize")
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
        sys.modules["sitecustomize"] = this


if hasattr(sys, "addaudithook"):
    sys.addaudithook(_watch)
_pass_on()
