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
from enum import Enum
from typing import Any, Final

from aiosmtpd.smtp import SMTP

from mailstack import log
from mailstack.crowd import Crowd, Limits, Refusal
from mailstack.peers import peer_of
from mailstack.smtp import replies
from mailstack.smtp.session import Session
from mailstack.smtp.site import Site
from mailstack.smtp.transport import describe_tls, has_spoken
from mailstack.tls import Tls, reason_of

_MAX_INPUT: Final = 64 * 1024
"""Octets that may wait while a reply is awaited; then the peer has to wait, too."""

_TURN_COMMANDS: Final = 64
"""How many commands of one connection are obeyed at a time: some milliseconds, where all are costly."""

_TURN_OCTETS: Final = 64 * 1024
"""What comes in larger pieces may be followed at once by the next, which has to wait for others, too."""

_CONTENT_PATIENCE: Final = 15
"""How many times as long within the content of a message, which is worth more than a connection."""

_LAST_WORDS_SECONDS: Final = 2.0
"""How long a connection has for its end where we cannot wait."""

_LINGER_SECONDS: Final = 30.0
"""How long a peer may take to read our last words."""

_REFUSALS: Final = {
    Refusal.FULL: replies.TOO_MANY_CONNECTIONS,
    Refusal.FROM_THERE: replies.TOO_MANY_CONNECTIONS_FROM_THERE,
}


class Stopping(Enum):
    """Which connections a server that stops ends, besides those whose last reply is said."""

    PATIENT = "not those in a transaction"
    AT_ONCE = "all that nothing is under way in"


@dataclass(slots=True, eq=False)
class Reception:
    """What all connections of one listener share, and those that are open."""

    site: Site
    tls_context: Callable[[], ssl.SSLContext]
    connections: Crowd[Receiver] = field(init=False)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    stopping: Stopping | None = None

    def __post_init__(self) -> None:
        self.connections = Crowd(Limits.of(self.site.settings))


class Receiver(SMTP):
    """One connection; made by the listener, owned by the loop."""

    # aiosmtpd's own __init__ is what costs a third of a connection: nothing of it is needed here.
    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._site = reception.site  # as it was then: a session goes on as it began
        self._loop = asyncio.get_running_loop()
        self._input = b""
        self._awaiting = False  # a task is under way; its reply comes before the next line is obeyed
        self._ended = False  # the peer has said all it will say
        self._lingering = False  # we have said all we will say, and listen to nothing until the peer ends
        self._write_paused = False
        self._read_paused = False
        self._greeting: asyncio.TimerHandle | None = None  # while it is not said
        self.transport: Any = None
        self.deadline = self._loop.time() + self._site.settings.idle_seconds

    # -- asyncio.Protocol ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, at once or in a moment, or say why not."""
        self.transport = transport
        peer = peer_of(transport.get_extra_info("peername"))
        self.conversation = Session(self._site, peer, log.new_session_id())
        delay = self._site.settings.greeting_delay_milliseconds
        self._site.delivery.counts["smtp_connections"] += 1
        if why := self._reception.connections.join(self, peer, self._loop.time()):
            refusal = _REFUSALS[why]
            log.event("connection refused", address=peer.address, reply=refusal.decode().strip())
            self._site.delivery.counts["smtp_connections_refused"] += 1
            self.end(refusal, linger=False)
        elif has_spoken(transport):
            self._refuse_early_talker()
        elif delay and peer.network:
            # What spams blindly speaks at once. A mail server loses less than it takes to reach us, and
            # here a timer is all it costs.
            self._greeting = self._loop.call_later(delay / 1000, self._greet)
        else:
            self._greet()

    def _greet(self) -> None:
        self._greeting = None
        self._progress()
        self._write(self.conversation.greeting())

    def _refuse_early_talker(self) -> None:
        log.event("connection refused", address=self.conversation.peer.address, reply="it spoke first")
        self._site.delivery.counts["smtp_connections_refused"] += 1
        self.end(replies.EARLY_TALKER, linger=True)

    def data_received(self, data: bytes) -> None:
        """Obey what has come, unless an earlier command still awaits its reply."""
        if self.conversation.closing:
            return
        if self._greeting is not None:
            self._refuse_early_talker()
            return
        self._input = self._input + data if self._input else data
        if self._awaiting and len(self._input) > _MAX_INPUT:
            self._pause_reading()
        self._proceed()

    def eof_received(self) -> bool:
        """The peer has closed its side: what it is still owed is sent first."""
        self._ended = True
        owed = self._awaiting or self._write_paused
        if not owed:
            self._close()
        return owed

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the connection. A deposit that is under way goes on: its octets were all here."""
        self._reception.connections.leave(self)
        self._greet_no_more()
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
        self._proceed()

    # -- the command loop ------------------------------------------------------------------------

    def _proceed(self) -> None:
        """Obey as much of the input as there is, as far as nothing is awaited; write all replies at once."""
        conversation = self.conversation
        out: list[bytes] = []
        given, position = self._input, 0
        self._input = b""
        while (
            position < len(given)
            and len(out) < _TURN_COMMANDS
            and not (conversation.closing or self._awaiting or self._write_paused)
        ):
            answer, position = conversation.answer(given, position)
            if answer is None:
                break
            if isinstance(answer, bytes):
                out.append(answer)
                if conversation.starting_tls:
                    self._start_tls(out, injected=position < len(given))
                    return
            else:
                self._await(answer)
        if out or conversation.wants_content:
            self._progress()
        self._input = given[position:]
        if out:
            self._write(b"".join(out))
        if self._awaiting or self._write_paused:
            return
        if conversation.closing:
            self._close()
        elif len(out) == _TURN_COMMANDS or len(given) > _TURN_OCTETS:
            self._let_others_go_first()
        elif self._ended:
            self._close()
        elif self._read_paused or self._reception.stopping:
            self._stop_or_read_on()

    def _stop_or_read_on(self) -> None:
        if self._reception.stopping and self.may_stop:
            self.cut_short(replies.SHUTTING_DOWN)
        else:
            self._resume_reading()

    def _let_others_go_first(self) -> None:
        self._awaiting = True
        self._pause_reading()  # else libuv would read on, up to 32 times in one turn of the loop
        self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._awaiting = False
        if self.transport.is_closing():
            self.conversation.abandon()
        else:
            self._proceed()

    def _progress(self) -> None:
        # Octets of a line that does not end are none: it may take as long as a silence, no longer.
        self.deadline = self._loop.time() + self._site.settings.idle_seconds

    def _await(self, answer: Coroutine[Any, Any, bytes]) -> None:
        self._awaiting = True
        self._run(self._finish(answer))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        # The loop alone would let an unfinished task be collected; a stopping server waits for these.
        self._reception.tasks.add(task)
        task.add_done_callback(self._reception.tasks.discard)

    async def _finish(self, answer: Coroutine[Any, Any, bytes]) -> None:
        reply = await answer
        self._progress()
        self._write(reply)
        self._go_on()

    def _write(self, octets: bytes) -> None:
        if octets and not self._lingering and not self.transport.is_closing():
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

    def _start_tls(self, out: list[bytes], *, injected: bool) -> None:
        if injected:
            # Octets behind STARTTLS came from whoever can write into the plain connection, and
            # would be obeyed as if they had come under TLS (RFC 3207 §4.2, CVE-2011-0411).
            self._write(b"".join(out[:-1]))
            self.end(replies.PIPELINED_STARTTLS, linger=True)
            return
        self._write(b"".join(out))
        self.transport.pause_reading()  # the next octet is for the handshake
        self._awaiting = True
        self._run(self._shake_hands(self._reception.tls_context()))

    async def _shake_hands(self, context: ssl.SSLContext) -> None:
        plain = self.conversation
        transport = Tls(self, context, self._loop)
        shaken = False
        try:
            # What came in the very moment before reading stopped was not meant for the handshake.
            if not self._input:
                await transport.shake_hands(self.transport)
                shaken = True
        except OSError as error:  # ssl.SSLError, ConnectionError and TimeoutError are among them
            log.event("tls failed", session=plain.id, address=plain.peer.address, reason=reason_of(error))
        self._awaiting = False
        # Everything that was learned before the handshake is forgotten (RFC 3207 §4.2).
        plain.abandon()
        if not shaken or self._ended or plain.closing:
            self.transport.abort()
            self.connection_lost(None)  # which is not told to us while the handshake has the transport
            return
        self.transport = transport
        self._read_paused = True
        self.conversation = Session(self._site, plain.peer, plain.id, tls=describe_tls(transport))
        self._progress()
        self._proceed()

    # -- what the listener calls -----------------------------------------------------------------

    def look_at_clock(self, now: float) -> None:
        """End what takes too long: silence, a command, or the content of a message."""
        content, ended = self.conversation.content, self._awaiting or self.conversation.closing
        if self.deadline < now:
            self.time_out()
        elif content and not ended and content.is_too_slow(now, self._site.settings):
            self.end(replies.TOO_SLOW, linger=True)

    def time_out(self) -> None:
        """Nothing was said for too long (RFC 5321 §4.5.3.2), or our last words were not read."""
        if self._lingering or self.transport.is_closing():
            self.transport.abort()
        elif not self._awaiting:
            self.end(replies.TIMED_OUT, linger=bool(self._input))

    @property
    def may_stop(self) -> bool:
        """Whether nothing is under way that a stopping server should wait for."""
        if self._awaiting or self.conversation.wants_content:
            return False
        # From MAIL to the end of its message there is a transaction (RFC 5321 §3.3).
        return self._reception.stopping is Stopping.AT_ONCE or self.conversation.envelope is None

    def silence(self, now: float) -> float:
        """For how many seconds nothing has come, content weighed; none, where we are the one to speak."""
        if self._awaiting and not self.conversation.starting_tls:
            return 0.0
        seconds = now - self.deadline + self._site.settings.idle_seconds
        return seconds / _CONTENT_PATIENCE if self.conversation.content else seconds

    def give_way(self) -> None:
        """Make room for somebody else, at once."""
        self.cut_short(replies.GIVING_WAY)

    def cut_short(self, reply: bytes) -> None:
        """Say why, and end, whether that is heard or not."""
        if self.conversation.starting_tls:  # a reply would come into the middle of the handshake
            self.transport.abort()
            return
        self.end(reply, linger=False)
        self._loop.call_later(_LAST_WORDS_SECONDS, self.transport.abort)  # TLS waits for its peer's farewell

    def _greet_no_more(self) -> None:
        if self._greeting is not None:
            self._greeting.cancel()
            self._greeting = None

    def end(self, reply: bytes, *, linger: bool) -> None:
        """Say why, and close; see `_close`."""
        self._write(reply)
        self.conversation.broken_off = linger
        self._close()

    def _close(self) -> None:
        """What was written is still sent, to a peer that reads it.

        Closing on a peer that still sends would reset the connection, and the reset can overtake our
        last words: where we break off, we wait until the peer has ended, and drop what it says.
        """
        conversation = self.conversation
        conversation.closing = True
        self._greet_no_more()
        lingers = conversation.broken_off and not self._ended and conversation.tls is None
        if self.transport.is_closing() or (lingers and self._lingering):
            return
        self.deadline = self._loop.time() + _LINGER_SECONDS
        if lingers:
            self._lingering = True
            self.transport.write_eof()
            self._resume_reading()
        else:
            self.transport.close()
