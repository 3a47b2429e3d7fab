"""One POP3 connection: octets, time and TLS around a pure session.

Commands are obeyed inside `data_received`; a task exists only while the store is asked or a long
reply is on its way, so an idle session is a few small objects. The event loop owns everything here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, Final, cast

from mailstack import log
from mailstack.auth.binding import end_point_of
from mailstack.crowd import Crowd
from mailstack.errors import MailstackError
from mailstack.peers import Peer, peer_of
from mailstack.pop3 import record, sending, tcp, turns
from mailstack.pop3.answers import Answers
from mailstack.pop3.asks import Ask
from mailstack.pop3.inlet import Inlet
from mailstack.pop3.outlet import Gone, Outlet
from mailstack.pop3.record import SessionInfo
from mailstack.pop3.replies import Reply, reply_to
from mailstack.pop3.session import Session, Turn
from mailstack.pop3.surroundings import Surroundings, refusal
from mailstack.tls import Tls, reason_of

_COMMANDS_AT_ONCE: Final = 200
"""After so many commands of one packet, the other connections have their turn."""

_LINGER_SECONDS: Final = 2.0

Work = Reply | tuple[Turn, Ask]
"""What takes time: a long reply, or a turn that has asked for something."""


class Connection(asyncio.Protocol):
    """From accept to close; at its end it frees the maildrop and writes one line to the log."""

    # fmt: off
    __slots__ = (
        "_active_at", "_answers", "_awaiting", "_began_at", "_closing", "_crowd", "_draining", "_eof",
        "_inlet", "_loop", "_outlet", "_over", "_peer", "_pulse", "_reason", "_session", "_session_id",
        "_surroundings", "_task", "_tls", "_transport",
    )
    # fmt: on

    _transport: asyncio.Transport
    _peer: Peer
    _answers: Answers
    _session: Session

    def __init__(
        self, surroundings: Surroundings, crowd: Crowd[Connection], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._surroundings = surroundings
        self._crowd = crowd
        self._loop = loop
        self._began_at = self._active_at = loop.time()
        self._session_id = log.new_session_id()
        self._inlet = Inlet()
        self._outlet = Outlet(loop)
        self._pulse = tcp.Pulse()
        self._task: asyncio.Task[None] | None = None
        self._awaiting = False  # an answer for the session, and so the peer for us
        self._tls: str | None = None
        self._reason: str | None = None  # why the connection ends
        self._eof = False  # the peer sends no more
        self._closing = False
        self._draining = False
        self._over: asyncio.Event | None = None  # made by whoever wants to wait for the end

    # -- called by the event loop ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet; with implicit TLS the handshake is done, and the connection was let in before it."""
        self._transport = cast(asyncio.Transport, transport)
        self._inlet.use(self._transport)
        self._outlet.use(self._transport)
        self._peer = peer_of(transport.get_extra_info("peername"))
        self._answers = Answers(self._surroundings, peer=self._peer.address)
        self._begin()
        if self._tls is None and (why := self._crowd.join(self, self._peer, self._loop.time())):
            self._surroundings.note_refusal(self._peer.address, why)
            self._outlet.write(refusal(why).text)
            self._close("refused")
        else:
            self._outlet.write(self._session.greeting().text)
            self._outlet.flush_soon()

    def data_received(self, data: bytes) -> None:
        """Obey what is complete, in order."""
        if not self._closing:
            self._inlet.feed(data)
            self._go_on()

    def eof_received(self) -> bool:
        """Still answer what was asked before a half-close."""
        self._eof = True
        self._go_on()
        return not self._closing

    def pause_writing(self) -> None:
        """The client does not read as fast as we write: obey nothing more until it does."""
        self._outlet.pause()

    def resume_writing(self) -> None:
        """Go on where `pause_writing` stopped."""
        self._active_at = self._loop.time()
        self._outlet.resume()
        self._loop.call_soon(self._go_on)

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the maildrop at once, unless a commit is under way: then right after it."""
        self._outlet.lose()
        self._reason = self._reason or ("connection lost" if exc else "closed by the client")
        if not self._answers.expunging:
            self._answers.close()
        if self._task is None:
            self._finish()

    # -- called by the listener ------------------------------------------------------------------

    def look_after(self, now: float) -> None:
        """End what has been idle for too long, and what nobody is at the other end of any more.

        RFC 1939 §3: an autologout neither removes messages nor says anything.
        """
        stuck = self._outlet.blocked or self._closing
        if now - self._active_at > tcp.SILENCE_SECONDS:
            sign = self._pulse.look(self._transport.get_extra_info("socket"), stuck=stuck)
            if sign is tcp.Sign.VANISHED:
                self.abort("peer vanished")
            elif sign is tcp.Sign.READING:
                self._active_at = now
        if now - self._active_at <= self._surroundings.silence_seconds(logged_in=self._session.logged_in):
            return
        if stuck:
            self.abort("idle")
        elif self._task is None:
            self._close("idle")

    def silence(self, now: float) -> float:
        """For how long the peer has let us wait; none after the login, when an account has a right to."""
        return 0.0 if self._awaiting or self._session.logged_in else now - self._active_at

    def give_way(self) -> None:
        """Make room for somebody else; nothing is said, as in `kick`."""
        self.abort("made room")

    def drain(self) -> None:
        """End after the command under way, at once if there is none."""
        self._draining = True
        if self._task is None:
            self._close("shutdown")
            if self._tls is not None:
                # A client that sleeps does not answer the end of TLS, and nothing more is to be sent.
                self._loop.call_later(_LINGER_SECONDS, self._transport.abort)

    def abort(self, reason: str) -> None:
        """Cut the connection; a commit under way is still finished."""
        self._closing = True
        self._reason = self._reason or reason
        self._transport.abort()

    async def kick(self) -> None:
        """End the session for an administrator; returns when its maildrop is free.

        Nothing is said: the client would take it for the answer to its next command. A commit
        under way is still finished, anything else is cut.
        """
        if self._outlet.lost and self._task is None:  # it has ended since it was chosen
            await self._answers.closed()
            return
        if not self._answers.expunging:
            self._answers.close()
        if self._task is None:
            self._close("kicked")
        else:
            self.abort("kicked")
        over = self._over = self._over or asyncio.Event()
        try:
            await asyncio.wait_for(over.wait(), _LINGER_SECONDS)
        except TimeoutError:  # it does not take what was still to be sent, or our close_notify
            self._transport.abort()
            await over.wait()
        await self._answers.closed()

    def told(self) -> SessionInfo:
        """What an administrator may know of this session."""
        now = self._loop.time()
        tally = self._session.tally
        return SessionInfo(
            session=self._session_id,
            account=self._answers.account if self._answers.holds_lock else None,
            address=self._peer.address,
            tls=self._tls,
            since=time.time() - (now - self._began_at),
            idle_seconds=now - self._active_at,
            retrieved=tally.retrieved,
            retrieved_octets=tally.retrieved_octets,
        )

    def lose_lock(self) -> None:
        """The lock has gone, and the maildrop may be another session's: this one is over."""
        if self._answers.lose_lock():
            self._session.ended = "lock lost"

    # -- obeying ---------------------------------------------------------------------------------

    def _go_on(self) -> None:
        if self._task is None and not self._outlet.lost:
            work = self._advance()
            if work is not None:
                self._start(self._work(work))
        if not self._closing and not self._outlet.lost:
            self._inlet.meter()

    def _advance(self) -> Work | None:
        """Obey the lines that are here, up to one that takes time."""
        work = None
        for _ in range(_COMMANDS_AT_ONCE):
            if self._outlet.blocked or self._closing:
                break
            line = self._inlet.take(self._session.longest_line)
            if line is None:
                if self._eof:
                    self._close("closed by the client")
                break
            work = self._obey(line)
            if work is not None or not (self._inlet.more or self._eof):
                break  # that was all, as always in lockstep
        else:
            self._loop.call_soon(self._go_on)
        self._outlet.flush_soon()
        return work

    def _obey(self, line: bytes) -> Work | None:
        self._active_at = self._loop.time()
        self._pulse.settled = False
        try:
            reply = self._session.obey(line, more=self._inlet.more)
            if not isinstance(reply, Reply):
                turn, begun = reply, turns.begin(reply, self._answers)
                if not isinstance(begun, Reply):
                    return turn, begun
                reply = begun
        except Exception as error:
            reply = self._unforeseen(error)
        if self._session.ended is not None and self._answers.closes_slowly:
            return reply
        if not sending.at_once(self._outlet, reply):
            return reply
        if reply.message is not None:
            self._session.tally.finish_sending()
        self._end_if_over()
        return None

    def _end_if_over(self) -> None:
        if self._session.ended is not None:
            self._close(self._session.ended, linger=self._session.ended != "quit")
        elif self._inlet.endless:
            self._close("endless line", linger=True)
        elif self._draining:
            self._close("shutdown")

    # -- what takes time: one task, while there is work ------------------------------------------

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = self._loop.create_task(self._until_done(work))

    async def _until_done(self, work: Coroutine[Any, Any, None]) -> None:
        """Own the connection's task: however it ends, the maildrop is freed and the log is written."""
        try:
            await work
        except Gone:
            pass
        except MailstackError as error:  # in the middle of a reply, which cannot be taken back
            log.event("pop3.broken", session=self._session_id, account=self._answers.account, why=str(error))
            self.abort("store failed")
        except Exception as error:
            self._unforeseen(error)
            self.abort("local error")
        finally:
            self._task = None
        if self._outlet.lost:
            self._finish()
        elif self._draining:
            self._close("shutdown")
        else:
            self._go_on()

    async def _work(self, work: Work | None) -> None:
        while work is not None:
            reply = work if isinstance(work, Reply) else await self._fulfil(*work)
            self._active_at = self._loop.time()
            if self._session.ended is not None:
                await self._answers.closed()  # whoever reads our last word may log in again at once
            self._outlet.check()
            await self._send(reply)
            self._end_if_over()
            work = None if self._closing else self._advance()

    async def _fulfil(self, turn: Turn, ask: Ask) -> Reply:
        self._awaiting = True
        try:
            return await turns.fulfil(turn, ask, self._answers, self._outlet)
        except Gone:
            raise
        except Exception as error:
            return self._unforeseen(error)
        finally:
            self._awaiting = False

    def _unforeseen(self, error: Exception) -> Reply:
        log.failure("pop3.failure", error, session=self._session_id, account=self._answers.account)
        return reply_to(error)

    async def _send(self, reply: Reply) -> None:
        self._pulse.settled = False
        if reply.start_tls and len(self._inlet):
            reply = self._session.distrust()
        self._outlet.write(reply.text)
        if reply.lines is not None:
            await sending.lines(self._outlet, self._answers, reply.lines)
        elif reply.message is not None:
            await sending.message(self._outlet, reply.message)
            self._session.tally.finish_sending()
        elif reply.start_tls:
            self._outlet.flush()
            await self._start_tls()

    # -- beginning and end -----------------------------------------------------------------------

    def _begin(self) -> None:
        """A session that knows nothing of what was said before."""
        tls = self._transport.get_extra_info("ssl_object")
        self._tls = tls and tls.version()
        end_point = tls and end_point_of(tls.context)
        channel = self._surroundings.channel(self._peer, tls=tls is not None, end_point=end_point)
        self._session = Session(channel, self._answers.read_ahead)

    async def _start_tls(self) -> None:
        """Shake hands and begin anew (RFC 2595 §4)."""
        self._transport.pause_reading()
        # Not after the handshake: what came with its last octets came under TLS.
        self._inlet.clear()
        try:
            transport = Tls(self, self._surroundings.tls(), self._loop)
            await transport.shake_hands(self._transport)
        except OSError as error:  # ssl.SSLError, ConnectionError and TimeoutError are among them
            self.abort(f"tls handshake failed: {reason_of(error)}")
            if not self._outlet.lost:
                self.connection_lost(error)
            raise Gone from error
        if self._outlet.lost:
            raise Gone
        self._transport = transport
        self._inlet.use(transport)
        self._outlet.use(transport)
        self._begin()
        self._active_at = self._loop.time()
        transport.resume_reading()

    def _close(self, reason: str, *, linger: bool = False) -> None:
        """Send what is to be sent, then close; the maildrop is free before the client can know.

        Closing on a peer that still sends would reset the connection, and it could lose our last
        words: `linger` listens a little longer, to nothing.
        """
        if self._closing:
            return
        self._closing = True
        self._reason = self._reason or reason
        self._answers.close()
        self._outlet.flush()
        if linger and self._tls is None and not self._eof:
            self._transport.write_eof()
            self._loop.call_later(_LINGER_SECONDS, self._transport.abort)
        else:
            self._transport.close()

    def _finish(self) -> None:
        """Write the session's line to the log, once."""
        if not self._crowd.leave(self):
            return
        self._answers.close()
        if self._over is not None:
            self._over.set()
        record.write(
            self.told(),
            session=self._session,
            answers=self._answers,
            seconds=self._loop.time() - self._began_at,
            ended=self._reason,
        )
