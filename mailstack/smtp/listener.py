"""SMTP and LMTP on sockets that somebody else has bound: accept, sweep, drain."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from mailstack.crowd import Limits
from mailstack.settings import Smtp
from mailstack.smtp import replies
from mailstack.smtp.receiver import Receiver, Reception, Stopping

BACKLOG: Final = 1024
_TRANSACTION_SECONDS: Final = 5.0
"""How long a stopping server waits for senders that have said MAIL and not yet sent their message."""

_SWEEP_SECONDS: Final = 5.0
"""How often deadlines are looked at, at least: one timer for all connections, not one for each."""


class Listener:
    """All connections of some sockets that share one Reception."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.Task[None] | None = None

    async def open(self, sockets: Sequence[socket.socket]) -> None:
        """Accept on these bound sockets from now on; they are closed with the listener."""
        loop = asyncio.get_running_loop()
        for bound in sockets:
            make = loop.create_unix_server if bound.family == socket.AF_UNIX else loop.create_server
            server = await make(lambda: Receiver(self._reception), sock=bound, backlog=BACKLOG)
            self._servers.append(server)
        self._sweeper = loop.create_task(self._sweep())

    @property
    def sessions(self) -> int:
        """How many connections are open."""
        return len(self._reception.connections)

    @property
    def octets_in_flight(self) -> int:
        """Octets of the messages that are being received or stored."""
        return self._reception.site.delivery.flight.octets

    def adopt(self, settings: Smtp) -> None:
        """Other limits for who connects from now on; the content of a message keeps its own."""
        self._reception.site = replace(self._reception.site, settings=settings)
        self._reception.connections.adopt(Limits.of(settings))

    def close(self) -> None:
        """Accept nothing more; what is open goes on."""
        for server in self._servers:
            server.close()

    async def drain(self, seconds: float) -> None:
        """End idle connections now and the others as soon as they have their reply, within the bound.

        A sender in the middle of a transaction goes on with it, unless it lets us wait.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        patience = min(_TRANSACTION_SECONDS, seconds)
        if not await self._stopped(Stopping.PATIENT, patience):
            await self._stopped(Stopping.AT_ONCE, seconds - patience)
        for connection in self._reception.connections:
            connection.cut_short(replies.SHUTTING_DOWN)
        if self._reception.tasks:
            # A deposit whose peer has gone is still carried out, and so is its log line: by the store, which
            # writes what waits before it closes, where there is no time left for it here.
            await asyncio.wait(self._reception.tasks, timeout=max(deadline - loop.time(), 0))
        if self._sweeper is not None:
            self._sweeper.cancel()

    async def _stopped(self, how: Stopping, seconds: float) -> bool:
        """End what may be ended, now or by itself behind its reply; whether that was all."""
        self._reception.stopping = how
        for connection in self._reception.connections:
            if connection.may_stop:
                connection.cut_short(replies.SHUTTING_DOWN)
        return await self._reception.connections.gone(seconds)

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        limits = self._reception.site.settings
        pause = min(_SWEEP_SECONDS, limits.idle_seconds / 4, limits.max_data_seconds / 4)
        while True:
            await asyncio.sleep(pause)
            now = loop.time()
            for connection in self._reception.connections:
                connection.look_at_clock(now)
