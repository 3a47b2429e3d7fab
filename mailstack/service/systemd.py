"""What systemd wants to hear from a service of Type=notify (sd_notify(3)), without its library."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

_FULL_SECONDS: Final = 0.1
"""So long a word waits for a manager that does not listen: the event loop waits with it."""

_CREDENTIALS: Final = struct.Struct("3i")  # process, user, group (unix(7))


def notify(*lines: str) -> None:
    """Tell the service manager, if one listens; a manager that has gone away is no concern of ours."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        manager.settimeout(_FULL_SECONDS)
        manager.sendto("\n".join(lines).encode(), address)


def status(text: str) -> str:
    """The line that `systemctl status` shows."""
    return f"STATUS={' '.join(text.split())}"


def reloading() -> None:
    """A reload has begun; READY=1 ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """How long we may be silent before we are taken for stuck, or None (sd_watchdog_enabled(3))."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1_000_000


def managing() -> socket.socket:
    """A socket that processes can notify instead of the service manager's."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    manager.bind("")  # to a name that the kernel makes, in no folder
    return manager


def address(manager: socket.socket) -> str:
    """What NOTIFY_SOCKET has to be for those who are to notify it."""
    name: bytes = manager.getsockname()
    return "@" + name[1:].decode()


def told(manager: socket.socket) -> tuple[int, Mapping[str, str]]:
    """What a process has notified, and its number, which is the kernel's word and not its own."""
    said, about, _, _ = manager.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
    pid = next(
        (
            _CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0]
            for level, kind, data in about
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
        ),
        0,
    )
    lines = (line.partition("=") for line in said.decode(errors="replace").splitlines())
    return pid, {name: value for name, _, value in lines}
