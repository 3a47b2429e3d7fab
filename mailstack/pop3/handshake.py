"""Implicit TLS (RFC 8314 §3.3) with the context of the moment.

asyncio's servers keep the context that they were made with; here each connection asks for it, so a
renewed certificate is used at once and no session is dropped for it.
"""

from __future__ import annotations

import asyncio
from typing import cast

from mailstack import log
from mailstack.crowd import Crowd
from mailstack.peers import Peer, peer_of
from mailstack.pop3.connection import Connection
from mailstack.pop3.surroundings import Surroundings
from mailstack.tls import Tls, reason_of


class Handshake(asyncio.Protocol):
    """A connection that has to prove itself; it counts like one that is greeted.

    No task waits for it, which would cost a poll more than what is asked in it.
    """

    __slots__ = (
        "_began_at",
        "_crowd",
        "_loop",
        "_peer",
        "_session",
        "_surroundings",
        "_tls",
        "_under_way",
        "_why",
    )

    _began_at: float
    _peer: Peer
    _tls: Tls

    def __init__(
        self,
        session: Connection,
        crowd: Crowd[Connection],
        surroundings: Surroundings,
        loop: asyncio.AbstractEventLoop,
        under_way: set[Handshake],
    ) -> None:
        """`under_way` has all handshakes that there are now."""
        self._session = session
        self._crowd = crowd
        self._surroundings = surroundings
        self._loop = loop
        self._why: str | None = None  # it is given up
        self._under_way = under_way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it, and begin; or cut it."""
        plain = cast(asyncio.Transport, transport)
        self._peer = peer_of(transport.get_extra_info("peername"))
        self._began_at = self._loop.time()
        if refusal := self._crowd.arrive(self, self._peer, self._began_at):
            # Without a handshake nothing can be said, and to shake hands first is what costs most.
            self._surroundings.note_refusal(self._peer.address, refusal)
            plain.abort()
        else:
            self._under_way.add(self)
            self._tls = Tls(self._session, self._surroundings.tls(), self._loop)
            self._tls.begin(plain, self._done)

    def silence(self, now: float) -> float:
        """Since it began: no honest one takes long."""
        return now - self._began_at

    def give_way(self) -> None:
        """Make room for somebody else."""
        self.abort("made room")

    def abort(self, why: str) -> None:
        """Cut the connection."""
        self._why = why
        self._tls.abort()

    def _done(self, error: Exception | None) -> None:
        self._under_way.discard(self)
        if error is not None:
            self._fail(self._why or reason_of(error))
        else:
            self._crowd.admit(self, self._session)
            self._session.connection_made(self._tls)
            self._tls.resume_reading()

    def _fail(self, why: str) -> None:
        log.event("pop3.handshake", address=self._peer.address, why=why)
        self._crowd.leave(self)
