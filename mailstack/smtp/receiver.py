"""The SMTP connection: aiosmtpd's protocol class with a command loop that never waits for a line.

aiosmtpd gives each connection a task, a stream reader and a fresh look at its own methods, and
writes each reply by itself. Here the lines of a segment are obeyed as the segment comes in, and
their replies leave in one write; only what has to wait for the store becomes a task. What is taken
over from aiosmtpd by a private name is listed in `tests/smtp/test_receiver.py`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from aiosmtpd.smtp import SMTP

from mailstack import log
from mailstack.smtp import replies
from mailstack.smtp.session import MAX_LINE, Peer, Session, Site

IDLE_SECONDS: Final = 300.0
"""How long a peer may be silent (RFC 5321 §4.5.3.2.7)."""

_MAX_INPUT: Final = 64 * 1024
"""Octets that may wait while a reply is awaited; then the peer has to wait, too."""

_HANDSHAKE_SECONDS: Final = 30.0
_TLS_CLIENT_HELLO: Final = b"\x16\x03"


@dataclass(slots=True, eq=False)
class Reception:
    """What all connections of one listener share, and the set of those that are open."""

    site: Site
    tls_context: Callable[[], ssl.SSLContext | None]
    max_connections: int
    idle_seconds: float = IDLE_SECONDS
    connections: set[Receiver] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class Receiver(SMTP):
    """One connection; made by the listener, owned by the loop."""

    # aiosmtpd's own __init__ is what costs a third of a connection: nothing of it is needed here.
    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._loop = asyncio.get_running_loop()
        self._input = b""
        self._awaiting = False  # a task is under way; its reply comes before the next line is obeyed
        self._ended = False  # the peer has said all it will say
        self._write_paused = False
        self._read_paused = False
        self.transport: Any = None
        self.deadline = self._loop.time() + reception.idle_seconds

    # -- asyncio.Protocol ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or say that there are too many."""
        self.transport = transport
        peername = transport.get_extra_info("peername")
        address = peername[0] if isinstance(peername, tuple) else ""
        self.conversation = Session(self._reception.site, Peer(address), log.new_session_id())
        connections = self._reception.connections
        if len(connections) >= self._reception.max_connections:
            log.event("connection refused", address=address, reason="too many connections")
            self._write(replies.TOO_MANY_CONNECTIONS)
            self.transport.close()
            return
        connections.add(self)
        self._write(self.conversation.greeting())

    def data_received(self, data: bytes) -> None:
        """Obey what has come, unless an earlier command still awaits its reply."""
        self.deadline = self._loop.time() + self._reception.idle_seconds
        self._input = self._input + data if self._input else data
        if not self._awaiting:
            self._proceed()
        elif len(self._input) > _MAX_INPUT:
            self._pause_reading()

    def eof_received(self) -> bool:
        """The peer has closed its side: what it is still owed is sent first (plain TCP alone)."""
        self._ended = True
        half_open = self._awaiting and self.conversation.peer.tls is None
        if not self._awaiting:
            self.transport.close()
        return half_open

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the connection. A deposit that is under way goes on: its octets were all here."""
        self._reception.connections.discard(self)
        self.conversation.closing = True
        if not self._awaiting:
            self.conversation.abandon()

    def pause_writing(self) -> None:
        """The peer does not read its replies: obey nothing more until it does."""
        self._write_paused = True
        self._pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._write_paused = False
        if not self._awaiting:
            self._proceed()

    # -- the command loop ------------------------------------------------------------------------

    def _proceed(self) -> None:
        """Obey as much of the input as there is, then write all replies at once."""
        conversation = self.conversation
        out: list[bytes] = []
        given, position = self._input, 0
        self._input = b""
        while not (conversation.closing or self._awaiting or self._write_paused):
            if conversation.wants_content:
                chunk = given[position:] if position else given
                given, position = b"", 0
                if not chunk:
                    break
                ended = conversation.take(chunk)
                if ended is None:
                    break
                answer, given = ended
            else:
                end = given.find(b"\r\n", position)
                if end < 0:
                    out.append(self._unfinished(given, position))
                    break
                line, position = given[position:end], end + 2
                answer = conversation.obey(line)
            if isinstance(answer, bytes):
                out.append(answer)
                if conversation.starting_tls:
                    self._start_tls(given[position:], out)
                    return
            else:
                self._await(answer)
        self._input = given[position:] if position else given
        self._write(b"".join(out))
        if conversation.closing and not self._awaiting:
            self.transport.close()
        elif not self._awaiting and not self._write_paused:
            self._resume_reading()

    def _unfinished(self, given: bytes, position: int) -> bytes:
        """What is to be said of a line that has not come whole: nothing, as a rule."""
        size = len(given) - position
        if given.startswith(_TLS_CLIENT_HELLO, position):
            self.conversation.closing = True
            return replies.NOT_SMTP
        if given.find(b"\n", position) >= 0:
            # A client that ends lines with LF alone would wait for ever, and one that mixes both
            # may have been given its lines by somebody else (RFC 5321 §2.3.8).
            self.conversation.closing = True
            return replies.BAD_LINE_END
        if size >= MAX_LINE:
            self.conversation.closing = True
            return replies.LINE_TOO_LONG
        return b""

    def _await(self, answer: Coroutine[Any, Any, bytes]) -> None:
        self._awaiting = True
        task = self._loop.create_task(self._finish(answer))
        # The loop alone would let an unfinished task be collected; a stopping server waits for these.
        self._reception.tasks.add(task)
        task.add_done_callback(self._reception.tasks.discard)

    async def _finish(self, answer: Coroutine[Any, Any, bytes]) -> None:
        reply = await answer
        self._awaiting = False
        self._write(reply)
        if self.transport.is_closing():
            return
        self._proceed()
        if self._ended and not self._awaiting:
            self.transport.close()

    def _write(self, octets: bytes) -> None:
        if octets and not self.transport.is_closing():
            self.transport.write(octets)

    def _pause_reading(self) -> None:
        if not self._read_paused and not self.transport.is_closing():
            self._read_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._read_paused and not self.transport.is_closing():
            self._read_paused = False
            self.transport.resume_reading()

    # -- TLS -------------------------------------------------------------------------------------

    def _start_tls(self, behind: bytes, out: list[bytes]) -> None:
        context = self._reception.tls_context()
        if behind or context is None:
            # Octets behind STARTTLS came from whoever can write into the plain connection, and
            # would be obeyed as if they had come under TLS (RFC 3207 §4.2, CVE-2011-0411).
            out[-1] = replies.PIPELINED_STARTTLS if behind else replies.TLS_UNAVAILABLE
            self.conversation.closing = True
            self._write(b"".join(out))
            self.transport.close()
            return
        self._write(b"".join(out))
        self._awaiting = True
        task = self._loop.create_task(self._shake_hands(context))
        self._reception.tasks.add(task)
        task.add_done_callback(self._reception.tasks.discard)

    async def _shake_hands(self, context: ssl.SSLContext) -> None:
        plain = self.conversation
        try:
            transport = await self._loop.start_tls(
                self.transport, self, context, server_side=True, ssl_handshake_timeout=_HANDSHAKE_SECONDS
            )
        except (OSError, ssl.SSLError) as error:
            log.event(
                "tls failed", session=plain.id, address=plain.peer.address, reason=str(error) or repr(error)
            )
            self.transport.abort()
            return
        finally:
            self._awaiting = False
        if transport is None:  # the peer left in the middle of the handshake
            return
        # Everything that was learned before the handshake is forgotten (RFC 3207 §4.2).
        plain.abandon()
        self.transport = transport
        self.conversation = Session(
            self._reception.site, Peer(plain.peer.address, describe_tls(transport)), plain.id
        )
        if self._input:
            self._proceed()

    # -- what the listener calls -----------------------------------------------------------------

    def time_out(self) -> None:
        """Nothing was said for too long (RFC 5321 §4.5.3.2)."""
        if not self._awaiting:
            self.end(replies.TIMED_OUT)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way that a stopping server should wait for."""
        return not self._awaiting and not self.conversation.wants_content

    def end(self, reply: bytes) -> None:
        """Say why, and close."""
        self.conversation.closing = True
        self._write(reply)
        self.transport.close()


def describe_tls(transport: asyncio.BaseTransport) -> str:
    """Version and cipher, as in `TLSv1.3 TLS_AES_256_GCM_SHA384`."""
    name, version, _bits = transport.get_extra_info("cipher") or ("unknown", "TLS", 0)
    return f"{version} {name}"
