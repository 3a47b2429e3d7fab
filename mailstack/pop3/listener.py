"""POP3 on sockets that were bound by somebody else: accept, look after, stop, drain."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from mailstack.auth.logins import Logins
from mailstack.crowd import Crowd, Limits
from mailstack.pop3.connection import Connection
from mailstack.pop3.expiry import Expiries
from mailstack.pop3.handshake import Handshake
from mailstack.pop3.record import SessionInfo
from mailstack.pop3.surroundings import Surroundings, TlsProvider
from mailstack.pop3.tcp import keep_alive
from mailstack.settings import Pop3
from mailstack.store import limits
from mailstack.store.store import Store

_LOOK_SECONDS: Final = 5.0
"""How often all connections are looked after; the timers of a session are that coarse."""

_BACKLOG: Final = 1024
_CUT_SECONDS: Final = 1.0


async def serve(
    sockets: Sequence[socket.socket],
    *,
    store: Store,
    logins: Logins,
    tls: TlsProvider,
    settings: Pop3,
    implicit_tls: bool = False,
    retention: limits.Limits = limits.NO_LIMITS,
) -> Listener:
    """Accept POP3 sessions on bound sockets, which belong to the listener from now on.

    `tls` is asked at each handshake; with `implicit_tls` (RFC 8314 §3.3) the handshake comes first,
    else STLS is offered. `retention` is what holds for an account that says nothing, for EXPIRE.
    """
    surroundings = Surroundings(
        store=store,
        logins=logins,
        expiries=Expiries(store, retention),
        tls=tls,
        settings=settings,
    )
    listener = Listener(surroundings, asyncio.get_running_loop())
    for bound in sockets:
        await listener.accept_on(bound, implicit_tls=implicit_tls)
    return listener


class Listener:
    """The sockets of one kind and the sessions that came in by them."""

    def __init__(self, surroundings: Surroundings, loop: asyncio.AbstractEventLoop) -> None:
        self._surroundings = surroundings
        self._loop = loop
        self._servers: list[asyncio.Server] = []
        self._handshakes: set[Handshake] = set()
        self._crowd: Crowd[Connection] = Crowd(Limits.of(surroundings.settings))
        shortest = min(surroundings.settings.idle_seconds, surroundings.settings.login_idle_seconds)
        self._look_seconds = min(_LOOK_SECONDS, shortest / 4)
        self._timer = loop.call_later(self._look_seconds, self._look_after)
        surroundings.store.on_locks_lost.append(self._hear_of_lost_locks)

    @property
    def sessions(self) -> int:
        """How many connections there are now."""
        return len(self._crowd)

    def adopt(self, settings: Pop3) -> None:
        """Other times and rules for who connects from now on."""
        self._surroundings = replace(self._surroundings, settings=settings)
        self._crowd.adopt(Limits.of(settings))

    def told(self) -> list[SessionInfo]:
        """Every session there is now."""
        return [connection.told() for connection in self._crowd]

    async def kick(self, wanted: Callable[[SessionInfo], bool]) -> int:
        """End the sessions that are wanted; return how many, once their maildrops are free."""
        kicked = [connection for connection in self._crowd if wanted(connection.told())]
        await asyncio.gather(*(connection.kick() for connection in kicked))
        return len(kicked)

    async def accept_on(self, bound: socket.socket, *, implicit_tls: bool) -> None:
        """Listen on one more socket."""
        keep_alive(bound)
        server = await self._loop.create_server(
            self._handshake if implicit_tls else self._connection,
            sock=bound,
            backlog=_BACKLOG,
        )
        self._servers.append(server)

    def _connection(self) -> Connection:
        return Connection(self._surroundings, self._crowd, self._loop)

    def _handshake(self) -> Handshake:
        return Handshake(self._connection(), self._crowd, self._surroundings, self._loop, self._handshakes)

    def close(self) -> None:
        """Stop accepting; the sessions go on, but handshakes do not."""
        for server in self._servers:
            server.close()
        for handshake in tuple(self._handshakes):
            handshake.abort("shutdown")

    async def drain(self, timeout_seconds: float) -> None:
        """End every session: at once where nothing is under way, after its command elsewhere.

        What is not over in time is cut. A commit is never cut: it ends in the store's own time.
        """
        self.close()
        for connection in self._crowd:
            connection.drain()
        if not await self._crowd.gone(timeout_seconds):
            for connection in self._crowd:
                connection.abort("shutdown")
            await self._crowd.gone(_CUT_SECONDS)
        self._timer.cancel()
        with suppress(ValueError):  # this is the second drain
            self._surroundings.store.on_locks_lost.remove(self._hear_of_lost_locks)

    def _look_after(self) -> None:
        now = self._loop.time()
        for connection in self._crowd:
            connection.look_after(now)
        self._timer = self._loop.call_later(self._look_seconds, self._look_after)

    def _hear_of_lost_locks(self) -> None:
        # Called on the thread that noticed.
        self._loop.call_soon_threadsafe(self._lose_locks)

    def _lose_locks(self) -> None:
        for connection in self._crowd:
            connection.lose_lock()
