"""What systemd wants to hear from a service of Type=notify (sd_notify(3)), without its library."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

_FULL_SECONDS: Final = 0.1
"""So long a word waits for a manager that does not listen: the event loop waits with it."""


class Manager:
    """Who looks after this process: systemd, or a supervisor, by a connected datagram socket; or nobody."""

    def __init__(self, connection: socket.socket | None, watchdog_seconds: float | None) -> None:
        """`watchdog_seconds`: how long we may be silent before we are taken for stuck, if anybody minds."""
        self._connection = connection
        self.watchdog_seconds = watchdog_seconds
        if connection is not None:
            connection.settimeout(_FULL_SECONDS)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Manager:
        """The one that has started this process, as it says in the environment."""
        return cls(_connected(environ.get("NOTIFY_SOCKET")), _watchdog_seconds(environ))

    def passed_on(self, connection: socket.socket) -> Manager:
        """The manager of a child that has this to tell its parent by, who tells us."""
        if self.listens:
            return Manager(connection, self.watchdog_seconds)
        connection.close()
        return Manager(None, None)

    @property
    def listens(self) -> bool:
        """Whether anybody wants to hear of us."""
        return self._connection is not None

    def notify(self, *lines: str) -> None:
        """Tell it; a manager that has gone away is no concern of ours."""
        if self._connection is not None:
            with suppress(OSError):
                self._connection.send("\n".join(lines).encode())

    def reloading(self) -> None:
        """A reload has begun; READY=1 ends it."""
        self.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def close(self) -> None:
        """Say nothing more."""
        if self._connection is not None:
            self._connection.close()


def status(text: str) -> str:
    """The line that `systemctl status` shows."""
    return f"STATUS={' '.join(text.split())}"


def fields(said: bytes) -> Mapping[str, str]:
    """What a process has told its manager, by name."""
    lines = (line.partition("=") for line in said.decode(errors="replace").splitlines())
    return {name: value for name, _, value in lines}


def _connected(address: str | None) -> socket.socket | None:
    if not address:
        return None
    if address.startswith("@"):  # an abstract name (unix(7))
        address = "\0" + address[1:]
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        return None
    return connection


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """See sd_watchdog_enabled(3)."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1_000_000
