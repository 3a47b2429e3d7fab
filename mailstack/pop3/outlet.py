"""What a connection has to send: small pieces joined, large ones as they are, never too much.

Flow control: the transport says `pause` when it holds enough, and `resume` when it wants more.
One connection may so hold at most the transport's high water mark and two parts of a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

HIGH_WATER: Final = 64 * 1024
LOW_WATER: Final = 32 * 1024
"""Resume early: the next part is read while the rest of the last one is sent."""

_SMALL: Final = 16 * 1024
"""Pieces up to this size are copied together: one TLS record, one segment."""

_ENOUGH: Final = 64 * 1024
"""So much is handed to the transport at a time: it can say `pause`, and the buffers of TLS, which grow to
what they are given and stay like that, stay small."""


class Gone(Exception):
    """Nobody is at the other end any more."""


class Outlet:
    """The sending side of one transport; owned by its connection."""

    __slots__ = ("_held", "_loop", "_pieces", "_room_again", "_transport", "blocked", "lost")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.WriteTransport | None = None
        self._pieces: list[bytes] = []
        self._held = 0  # octets of the pieces
        self._room_again: asyncio.Future[None] | None = None
        self.blocked = False  # the transport holds enough
        self.lost = False

    def use(self, transport: asyncio.WriteTransport) -> None:
        """Send through this transport from now on (a new one after a TLS handshake)."""
        transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)
        self._transport = transport
        self.blocked = False

    def write(self, piece: bytes) -> None:
        """Keep a piece for the next `flush`, which comes by itself when there is enough."""
        octets = len(piece)
        if self._held + octets > _ENOUGH:
            self.flush()
        self._pieces.append(piece)
        self._held += octets

    def write_together(self, pieces: Sequence[bytes]) -> None:
        """The same for the pieces of one small reply, which are handed on together."""
        octets = sum(map(len, pieces))
        if self._held + octets > _ENOUGH:
            self.flush()
        self._pieces += pieces
        self._held += octets

    def flush(self) -> None:
        """Hand all pieces to the transport."""
        pieces = self._pieces
        if not pieces or self.lost or self._transport is None:
            return
        self._pieces = []
        self._held = 0
        if len(pieces) > 1:
            pieces = _joined(pieces)
        if len(pieces) == 1:
            self._transport.write(pieces[0])
        else:
            # In one system call: each wakes the reader, who then finds a status line without its message.
            self._transport.writelines(pieces)

    def flush_soon(self) -> None:
        """Flush at the end of this turn of the loop.

        Where many are answered at once, what is sent in a row wakes the readers for less than what is
        sent now and then.
        """
        if self._pieces:
            self._loop.call_soon(self.flush)

    async def room(self) -> None:
        """Flush, and wait until the transport wants more; raises Gone when it never will."""
        self.flush()
        while self.blocked and not self.lost:
            self._room_again = self._loop.create_future()
            try:
                await self._room_again
            finally:
                self._room_again = None
        self.check()

    def check(self) -> None:
        """Raise Gone unless somebody is there to be answered."""
        if self.lost:
            raise Gone

    def pause(self) -> None:
        """The transport holds enough."""
        self.blocked = True

    def resume(self) -> None:
        """The transport wants more."""
        self.blocked = False
        self._wake()

    def lose(self) -> None:
        """The transport has gone."""
        self.lost = True
        self._pieces.clear()
        self._wake()

    def _wake(self) -> None:
        if self._room_again is not None and not self._room_again.done():
            self._room_again.set_result(None)


def _joined(pieces: list[bytes]) -> list[bytes]:
    """The same octets, with small pieces that are neighbours put together."""
    if max(map(len, pieces)) <= _SMALL:
        return [b"".join(pieces)]
    joined: list[bytes] = []
    small: list[bytes] = []
    for piece in pieces:
        if len(piece) <= _SMALL:
            small.append(piece)
            continue
        if small:
            joined.append(b"".join(small))
            small = []
        joined.append(piece)
    if small:
        joined.append(b"".join(small))
    return joined
