"""What a connection has received and not yet obeyed: lines, and never too many of them."""

from __future__ import annotations

import asyncio
from typing import Final

from mailstack.pop3.lines import LineReader

_WAITING_OCTETS: Final = 64 * 1024
"""More octets of commands than this wait in the kernel, and so at the client."""


class Inlet(LineReader):
    """The receiving side of one transport; owned by its connection."""

    __slots__ = ("_paused", "_transport")

    _transport: asyncio.ReadTransport

    def __init__(self) -> None:
        super().__init__()
        self._paused = False

    def use(self, transport: asyncio.ReadTransport) -> None:
        """Receive from this transport from now on."""
        self._transport = transport
        self._paused = False

    def meter(self) -> None:
        """Leave commands in the kernel while enough of them wait here."""
        waiting = len(self._held) - self._at
        if not self._paused:
            if waiting > _WAITING_OCTETS:
                self._paused = True
                self._transport.pause_reading()
        elif waiting < _WAITING_OCTETS // 2:
            self._paused = False
            self._transport.resume_reading()
