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
from mailstack.pop3.tcp import peer_of
from mailstack.tls import Tls

_BACKLOG: Final = 1024
_ACCEPTED_AT_ONCE: Final = 32
_PAUSE_SECONDS: Final = 0.5


class TlsServer:
    """Accepts on one socket; each handshake is a task, which ends when the session begins."""

    def __init__(
        self,
        bound: socket.socket,
        session: Callable[[], asyncio.Protocol],
        tls: Callable[[], ssl.SSLContext | None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._bound: Final = bound
        self._session: Final = session
        self._tls: Final = tls
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
            accepted.setblocking(False)
            handshake = self._loop.create_task(self._shake_hands(accepted, name))
            self._handshakes.add(handshake)
            handshake.add_done_callback(self._handshakes.discard)

    def _pause(self, error: OSError) -> None:
        """No descriptor or no memory is left: try again when sessions have ended."""
        log.event("pop3.accept", why=error.strerror)
        self._loop.remove_reader(self._bound)
        self._loop.call_later(_PAUSE_SECONDS, self._go_on)

    def _go_on(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._bound, self._accept)

    async def _shake_hands(self, accepted: socket.socket, name: object) -> None:
        context = self._tls()
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
            log.event("pop3.handshake", peer=peer_of(name).address, why=why)
        except asyncio.CancelledError:
            if transport is not None:
                transport.abort()
            raise
        else:
            session.connection_made(tls)
            tls.resume_reading()
        finally:
            if transport is None:
                accepted.close()
