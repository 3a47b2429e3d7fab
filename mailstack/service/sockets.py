"""Listening sockets: bound by ourselves, or handed over by name by systemd (sd_listen_fds(3))."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections import defaultdict
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Final

from mailstack.errors import CannotListen
from mailstack.values import Listen, TcpAddress, UnixAddress

Sockets = Mapping[str, Sequence[socket.socket]]
"""Bound sockets by what is spoken on them: `smtp`, `lmtp`, `pop3`, `pop3s`, `metrics`."""

_FIRST_DESCRIPTOR: Final = 3
_BACKLOG: Final = 1024


def bind(addresses: Mapping[str, Sequence[Listen]]) -> Sockets:
    """Bind and listen on every address; raises CannotListen, naming the one that failed."""
    bound: dict[str, list[socket.socket]] = defaultdict(list)
    try:
        for name, several in addresses.items():
            for address in several:
                bound[name].append(_bound(address))
    except CannotListen:
        for sockets in bound.values():
            for each in sockets:
                each.close()
        raise
    return bound


def inherited(environ: MutableMapping[str, str]) -> Sockets:
    """The sockets that systemd passed to this very process; none is no error."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[socket.socket]] = defaultdict(list)
    # The order of the descriptors follows no rule to rely on; their names do.
    for number, name in enumerate(names[: int(environ.get("LISTEN_FDS", "0"))]):
        descriptor = _FIRST_DESCRIPTOR + number
        os.set_inheritable(descriptor, False)
        found[name].append(socket.socket(fileno=descriptor))
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environ.pop(variable, None)  # they are not for our own children
    return found


def unknown_host(address: TcpAddress) -> str | None:
    """Why no socket can be bound there, as far as the host's name goes: it is none."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        socket.getaddrinfo(address.host, address.port, family, socket.SOCK_STREAM)
    except OSError as error:
        return _reason(address, error)
    return None


def _bound(address: Listen) -> socket.socket:
    try:
        return _unix(address) if isinstance(address, UnixAddress) else _tcp(address)
    except OSError as error:
        raise CannotListen(f"cannot listen on {address}: {_reason(address, error)}") from error


def _tcp(address: TcpAddress) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "[::]:25" is both protocols, whatever the machine's default is; another address is its own.
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address.host == "::" else 1)
        bound.bind((address.host, address.port))
        bound.listen(_BACKLOG)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def _unix(address: UnixAddress) -> socket.socket:
    path = str(address.path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_dead_socket(path)
        bound.bind(path)
        os.chmod(path, 0o666)  # LMTP takes mail from whoever may deliver on this machine, as port 25 does
        bound.listen(_BACKLOG)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def _remove_dead_socket(path: str) -> None:
    """Remove what a server that was killed left behind; a socket that still answers stays."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def _reason(address: Listen, error: OSError) -> str:
    if isinstance(error, PermissionError) and isinstance(address, TcpAddress):
        return "ports below 1024 need systemd's socket units, or CAP_NET_BIND_SERVICE"
    if error.errno == errno.EAFNOSUPPORT:  # as in the sandbox of our units
        return "no such address can be had here; under systemd the port's socket unit is off, or has failed"
    return (error.strerror or str(error)).lower()  # a name that is not known has an errno of its own kind
