"""What a transport knows of its peer that asyncio has no word for."""

from __future__ import annotations

import asyncio
import fcntl
import termios


def has_spoken(transport: asyncio.BaseTransport) -> bool:
    """Whether octets of the peer are there already; one system call, and no waiting."""
    connection = transport.get_extra_info("socket")
    if connection is None:
        return False
    waiting = fcntl.ioctl(connection.fileno(), termios.FIONREAD, b"\0\0\0\0")
    return any(waiting)


def describe_tls(transport: asyncio.BaseTransport) -> str:
    """Version and cipher, as in `TLSv1.3 TLS_AES_256_GCM_SHA384`."""
    name, version, _bits = transport.get_extra_info("ssl_object").cipher()
    return f"{version} {name}"
