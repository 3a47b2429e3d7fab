"""What the comparisons with other servers share: a connection that listens until it is quiet, and a table."""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress
from typing import NamedTuple

PATIENCE_SECONDS = 5.0
QUIET_SECONDS = 0.15

NOTHING = b"(nothing)"


class Deviation(NamedTuple):
    """The first difference between what a transcript expects and what came."""

    asked: bytes
    expected: bytes
    got: bytes


class Conversation:
    """One connection: what is said is sent, what comes is collected until nothing more does."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext) -> None:
        self._context = context
        self.socket = socket.create_connection(address, timeout=PATIENCE_SECONDS)

    def start_tls(self) -> None:
        """Shake hands on the connection as it is."""
        self.socket = self._context.wrap_socket(self.socket, server_hostname="localhost")

    def send(self, octets: bytes) -> None:
        """Send, if anybody is there."""
        with suppress(OSError):  # what is missing in the answers tells of it
            self.socket.sendall(octets)

    def hear(self, lines: int) -> bytes:
        """All that comes, once there are so many lines and then nothing for a moment."""
        got = b""
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            enough = got.count(b"\n") >= lines
            self.socket.settimeout(QUIET_SECONDS if enough else until - time.monotonic() + 0.01)
            try:
                piece = self.socket.recv(1 << 16)
            except (TimeoutError, OSError):
                break
            if not piece:
                break
            got += piece
        return got

    def is_over(self) -> bool:
        """Whether the server has ended it."""
        self.socket.settimeout(PATIENCE_SECONDS)
        try:
            return self.socket.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    def half_close(self) -> None:
        """Say that nothing more will come."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def drop(self) -> None:
        """Reset the connection."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()


def cell(octets: bytes) -> str:
    """Octets as a table shows them."""
    shown = octets[:70] + (b"..." if len(octets) > 70 else b"")
    text = "".join(chr(o) if 0x20 <= o < 0x7F and o not in b"|`" else f"\\x{o:02x}" for o in shown)
    return text or "(empty line)"
