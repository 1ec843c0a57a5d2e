"""A network namespace: nothing in it but loopback, and the kernel counts who wanted more.

Linux only; root needs nothing else, others a user namespace, which some systems refuse.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence

_LIBC = ctypes.CDLL(None, use_errno=True)
# <linux/sched.h>, <linux/sockios.h> and <linux/if.h>
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1

_UNREACHABLE = ("Ip:OutNoRoutes", "Ip6OutNoRoutes")
_NOBODY_LISTENS = ("Udp:NoPorts", "Udp6NoPorts")


def enter() -> None:
    """Move this process into a new network namespace, with loopback; its ids stay the same.

    It may have one thread only. Raises OSError where the system refuses: the process is of no use
    then, since it may be half-way.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        _unshare(_CLONE_NEWNET)
    except PermissionError:
        _unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
        # Only who gives up setgroups may map a group without more rights (user_namespaces(7)).
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def _unshare(flags: int) -> None:
    unshare = getattr(_LIBC, "unshare", None)
    if unshare is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if unshare(flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def counters() -> list[int]:
    """File descriptors of this process's counters; they outlast it, and so does what they count."""
    names = ("/proc/self/net/snmp", "/proc/self/net/snmp6")
    return [os.open(name, os.O_RDONLY) for name in names if os.path.exists(name)]


def attempts(counters: Sequence[int]) -> int:
    """How often something in the namespace of these counters wanted to go further than loopback.

    A name server on loopback, as systemd-resolved is one, is out of reach too: then datagrams
    that nobody takes are look-ups of names, and count.
    """
    counted: dict[str, int] = {}
    for file in counters:
        lines = os.pread(file, 1 << 16, 0).decode().splitlines()
        if lines and lines[0].startswith("Ip:"):
            for names, values in zip(lines[::2], lines[1::2], strict=True):
                protocol, *fields = names.split()
                numbers = map(int, values.split()[1:])
                counted.update(zip((protocol + f for f in fields), numbers, strict=True))
        else:
            counted.update((name, int(value)) for name, value in map(str.split, lines))
    meant = _UNREACHABLE + _NOBODY_LISTENS if _asks_loopback_for_names() else _UNREACHABLE
    return sum(counted.get(name, 0) for name in meant)


def _asks_loopback_for_names() -> bool:
    """Whether resolv.conf(5) names a server on loopback, which it means too if it names none."""
    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            words = [line.split() for line in file]
    except OSError:
        words = []
    servers = [line[1] for line in words if line[:1] == ["nameserver"] and len(line) > 1]
    return not servers or any(server.startswith("127.") or server == "::1" for server in servers)
