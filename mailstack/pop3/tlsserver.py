"""Implicit TLS (RFC 8314 §3.3) with the context of the moment.

asyncio's servers keep the context that they were made with; here each connection asks for it, so a
renewed certificate is used at once and no session is dropped for it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final

from mailstack import log
from mailstack.crowd import Crowd
from mailstack.pop3.connection import Connection
from mailstack.pop3.surroundings import Surroundings
from mailstack.pop3.tcp import peer_of
from mailstack.tls import Tls

_BACKLOG: Final = 1024
_ACCEPTED_AT_ONCE: Final = 32
_PAUSE_SECONDS: Final = 0.5


class Handshake:
    """A connection that has to prove itself; it counts like one that is greeted."""

    __slots__ = ("_began_at", "task")

    def __init__(self, began_at: float) -> None:
        self._began_at = began_at
        self.task: asyncio.Task[None] | None = None

    def silence(self, now: float) -> float:
        """Since it began: no honest one takes long."""
        return now - self._began_at

    def give_way(self) -> None:
        """Make room for somebody else."""
        assert self.task is not None
        self.task.cancel()


class TlsServer:
    """Accepts on one socket; each handshake is a task, which ends when the session begins."""

    def __init__(
        self,
        bound: socket.socket,
        session: Callable[[], Connection],
        crowd: Crowd[Connection],
        surroundings: Surroundings,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._bound: Final = bound
        self._session: Final = session
        self._crowd: Final = crowd
        self._surroundings: Final = surroundings
        self._loop: Final = loop
        self._handshakes: set[asyncio.Task[None]] = set()
        self._closed = False
        bound.setblocking(False)
        bound.listen(_BACKLOG)
        loop.add_reader(bound, self._accept)

    def close(self) -> None:
        """Stop accepting, and give up the handshakes under way."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._bound)
        self._bound.close()
        for handshake in self._handshakes:
            handshake.cancel()

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                accepted, name = self._bound.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            address, now = peer_of(name).address, self._loop.time()
            handshake = Handshake(now)
            if refusal := self._crowd.arrive(handshake, address, now):
                # Without a handshake nothing can be said, and to shake hands first is what costs most.
                self._surroundings.refusal(address, refusal)
                accepted.close()
                continue
            accepted.setblocking(False)
            handshake.task = self._loop.create_task(self._shake_hands(accepted, address, handshake))
            self._handshakes.add(handshake.task)
            handshake.task.add_done_callback(self._handshakes.discard)

    def _pause(self, error: OSError) -> None:
        """No descriptor or no memory is left: try again when sessions have ended."""
        log.event("pop3.accept", why=error.strerror)
        self._loop.remove_reader(self._bound)
        self._loop.call_later(_PAUSE_SECONDS, self._go_on)

    def _go_on(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._bound, self._accept)

    async def _shake_hands(self, accepted: socket.socket, address: str, handshake: Handshake) -> None:
        context = self._surroundings.tls()
        transport: asyncio.Transport | None = None
        try:
            if context is None:
                raise ssl.SSLError("no certificate")
            session = self._session()
            tls = Tls(session, context, self._loop)
            transport, _ = await self._loop.connect_accepted_socket(lambda: tls, accepted)
            await tls.shake_hands(transport)
        except OSError as error:  # ssl.SSLError, ConnectionError and TimeoutError are among them
            why = getattr(error, "reason", None) or type(error).__name__
            log.event("pop3.handshake", peer=address, why=why)
            self._crowd.leave(handshake)
        except asyncio.CancelledError:
            if transport is not None:
                transport.abort()
            self._crowd.leave(handshake)
            raise
        else:
            self._crowd.admit(handshake, session)
            session.connection_made(tls)
            tls.resume_reading()
        finally:
            if transport is None:
                accepted.close()
