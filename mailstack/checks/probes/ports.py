"""Who listens on the addresses of the settings, and does it answer?"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from mailstack.checks.facts import Port
from mailstack.settings import Settings
from mailstack.values import Listen, TcpAddress, UnixAddress

PATIENCE_SECONDS: Final = 5.0
_LISTENING: Final = "0A"  # in /proc/net/tcp
_GREETINGS: Final = {"smtp": b"2", "pop3": b"+", "pop3s": b"", "lmtp": b"2"}
"""What each role's server says first; with TLS from the first octet it speaks second."""


class Holder(NamedTuple):
    """A process that listens somewhere."""

    pid: int
    name: str
    command: str


def look(settings: Settings) -> tuple[Port, ...]:
    """Every address where mail comes in or goes out, with its holder where this user may see it."""
    addresses = [(role, each) for role in _GREETINGS for each in settings.listening[role]]
    with ThreadPoolExecutor(8) as threads:
        return tuple(threads.map(lambda each: _port(*each), addresses))


def _port(role: str, address: Listen) -> Port:
    held, answers = _asked(role, address)
    if isinstance(address, UnixAddress):
        return Port(role, str(address), None, held, answers, "", None)
    holder = holder_of(address.port) if held else None
    if holder is None:
        return Port(role, str(address), address.port, held, answers, "", None)
    told = f"{holder.name} (process {holder.pid})"
    return Port(role, str(address), address.port, held, answers, told, _is_ours(holder))


def _is_ours(holder: Holder) -> bool | None:
    if "mailstack" in holder.command:
        return True
    # The sockets of every unit are the first process's, ours among them.
    return None if holder.pid == 1 else False


def _asked(role: str, address: Listen) -> tuple[bool, bool]:
    """Whether somebody listens, and whether it greets as this role does."""
    try:
        with _connected(address) as connection:
            greeting = _GREETINGS[role]
            try:
                return True, not greeting or connection.recv(1) == greeting
            except OSError:
                return True, False
    except OSError:
        return isinstance(address, TcpAddress) and _is_bound(address), False


def _is_bound(address: TcpAddress) -> bool:
    """Whether somebody has the port, though a connection did not come about."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def _connected(address: Listen) -> socket.socket:
    if isinstance(address, UnixAddress):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE_SECONDS)
        connection.connect(str(address.path))
        return connection
    return socket.create_connection(address.from_here, timeout=PATIENCE_SECONDS)


def holder_of(port: int) -> Holder | None:
    """The process that listens on a TCP port; None where nobody does, or this user may not see it."""
    inodes = set(_inodes(port))
    if not inodes:
        return None
    for pid, inode in _sockets():
        if inode in inodes:
            return Holder(pid, _read(pid, "comm").strip(), _read(pid, "cmdline").replace("\0", " "))
    return None


def _inodes(port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for columns in map(str.split, lines):
            if columns[3] == _LISTENING and int(columns[1].rpartition(":")[2], 16) == port:
                yield columns[9]


def _sockets() -> Iterator[tuple[int, str]]:
    """Processes with their sockets' inodes; the first process last, for it holds what it passes on, too."""
    pids = sorted(
        (int(each) for each in os.listdir("/proc") if each.isdecimal()), key=lambda pid: (pid == 1, pid)
    )
    for pid in pids:
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for name in names:
            try:
                target = os.readlink(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue
            if found := re.fullmatch(r"socket:\[(\d+)\]", target):
                yield pid, found[1]


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""


def max_open_files(pid: int) -> int | None:
    """A process's own limit; None where this user may not see it."""
    found = re.search(r"^Max open files\s+(\d+|unlimited)", _read(pid, "limits"), re.MULTILINE)
    if not found:
        return None
    return 1 << 62 if found[1] == "unlimited" else int(found[1])
