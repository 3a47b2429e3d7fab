"""What the kernel knows about the peer: whether it is still there.

A peer that vanished (no FIN: a phone out of range, a power cut) must not keep a maildrop locked.
On a silent connection keepalive finds out. While octets are on their way the kernel sends no
keepalives but retransmits for a quarter of an hour, so there the age of the last ACK decides: a
slow reader that is alive goes on acknowledging, even while its window stays shut.
"""

from __future__ import annotations

import socket
import struct
from enum import Enum
from typing import Final, Protocol

GONE_SECONDS: Final = 70
"""After so long without a sign of life, the peer has vanished; checked every few seconds."""

SILENCE_SECONDS: Final = 5
"""Before so long without a command or a reply there is nothing to look at."""

_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    # 30 + 4 × 10 seconds: a vanished peer is noticed within GONE_SECONDS.
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)

# struct tcp_info of linux/tcp.h: retransmits, probes; unacked; last_ack_recv; bytes_acked.
_INFO: Final = struct.Struct("=2xBB20xI28xI60xQ")


class HasOptions(Protocol):
    """A socket, or what an event loop shows of one."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """See socket.socket."""


def keep_alive(listening: socket.socket) -> None:
    """Have the kernel probe the silent connections of a listening socket; they inherit this."""
    if listening.family in (socket.AF_INET, socket.AF_INET6):
        for level, option, value in _KEEPALIVE:
            listening.setsockopt(level, option, value)


class Sign(Enum):
    """What the kernel's figures tell about the peer."""

    NOTHING = "nothing new"
    READING = "what waited has got further"
    VANISHED = "nobody answers"


class Pulse:
    """Watches the delivery of what one connection has written."""

    __slots__ = ("_acked_octets", "settled")

    def __init__(self) -> None:
        self._acked_octets = 0
        self.settled = False  # all was delivered; the owner takes that back when it writes

    def look(self, connection: HasOptions | None, *, stuck: bool) -> Sign:
        """One system call, or none where nothing can be on its way; `stuck`: more waits in memory."""
        if connection is None or (self.settled and not stuck):
            return Sign.NOTHING
        try:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
        except OSError:
            return Sign.NOTHING
        retransmits, probes, in_flight, last_ack_milliseconds, acked_octets = _INFO.unpack(info)
        reading, self._acked_octets = acked_octets != self._acked_octets, acked_octets
        self.settled = not stuck and not in_flight
        if retransmits + probes and last_ack_milliseconds > GONE_SECONDS * 1000:
            return Sign.VANISHED
        return Sign.READING if stuck and reading else Sign.NOTHING
