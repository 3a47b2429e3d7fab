"""TLS over a transport of the event loop, in no more memory than OpenSSL needs.

uvloop's own keeps a buffer of 256 KiB for each connection, and OpenSSL's as large as what it was ever
given at a time: an idle session costs 24 KiB there, 18.5 here, and a poll a fifth more time. One object
is both the protocol of the plain transport and the transport of the session.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

HANDSHAKE_SECONDS: Final = 30.0
"""A handshake that is not done by then is a scanner's, or a dead client's."""

_SHUTDOWN_SECONDS: Final = 30.0
"""So long the other side may take to end its half of the connection."""

_RECORD_OCTETS: Final = 16 * 1024
"""RFC 8446 §5.1. OpenSSL's buffers grow to what they are given at a time, and stay like that."""


class Tls(asyncio.Transport, asyncio.Protocol):
    """The server's side of one connection; it reads nothing for the session before `resume_reading`."""

    __slots__ = (
        "_blocked",
        "_done",
        "_ended",
        "_eof",
        "_error",
        "_heard",
        "_incoming",
        "_loop",
        "_object",
        "_outgoing",
        "_paused",
        "_plain",
        "_reads",
        "_session",
        "_timer",
        "_waiting",
    )

    _plain: asyncio.Transport

    def __init__(
        self, session: asyncio.Protocol, context: ssl.SSLContext, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._loop = loop
        self._session: asyncio.Protocol | None = session
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._done: Callable[[Exception | None], None] | None = None  # while hands are shaken
        self._timer: asyncio.TimerHandle | None = None
        self._waiting = b""  # what came while the session read nothing
        self._paused = True  # the session reads nothing
        self._blocked = False  # the other side reads nothing
        self._eof = False  # the other side has ended TCP
        self._heard = False  # and TLS, or there was nothing more to decrypt: the session knows
        self._ended = False  # this side sends no more
        self._error: Exception | None = None
        self._reads = False  # the session is given what comes: nothing of the above

    def begin(self, transport: asyncio.Transport, done: Callable[[Exception | None], None]) -> None:
        """Take the transport over and do the handshake; `done` is called once, with what went wrong.

        That is an OSError, of which ssl.SSLError, ConnectionError and TimeoutError are kinds; then the
        transport is closed, and the session is not told.
        """
        self._plain = transport
        self._done = done
        self._timer = self._loop.call_later(HANDSHAKE_SECONDS, self._fail, TimeoutError("handshake"))
        transport.set_protocol(self)

    async def shake_hands(self, transport: asyncio.Transport) -> None:
        """The same for whoever waits for it, on a transport that is not read; raises what went wrong.

        Where it is waited for, behind STARTTLS and STLS, the client speaks first; and up to TLS 1.2 not
        before it has our Finished (RFC 5246 §7.3).
        """
        session, self._session = self._session, None  # it hears nothing before it is told
        if transport.is_closing():
            raise ConnectionResetError("closed before the handshake")
        shaken = self._loop.create_future()
        self.begin(transport, lambda error: _tell(shaken, error))
        transport.resume_reading()
        try:
            await shaken
        except BaseException:
            self._settle()
            raise
        if self._ended:
            raise ConnectionResetError("closed after the handshake")
        self._flush()
        self._session = session

    def _settle(self) -> Callable[[Exception | None], None] | None:
        """The handshake is over, or nobody waits for it; who is to be told."""
        done, self._done = self._done, None
        if done is not None and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return done

    def _give_up(self, error: Exception) -> None:
        if done := self._settle():
            self._session = None
            done(error)

    def _weigh(self) -> None:
        self._reads = not (self._paused or self._blocked or self._ended or self._heard)

    # -- the protocol of the plain transport -----------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Decrypt it, and have the session receive it."""
        if self._ended:
            return
        if self._waiting or not (self._reads or self._done):
            self._waiting += data
        else:
            self._take(data)

    def eof_received(self) -> bool:
        """The other side has ended TCP, with or without ending TLS first."""
        self._eof = True
        if self._done:
            self._fail(ConnectionResetError("closed in the handshake"))
        elif self._ended:
            self._plain.close()
        else:
            self._resume()
        return True

    def pause_writing(self) -> None:
        """The plain transport holds enough, and what comes may make more of it without the session.

        OpenSSL answers by itself: a KeyUpdate (RFC 8446 §4.6.3), a renegotiation that it refuses.
        """
        self._blocked = True
        self._weigh()
        if not (self._done or self._ended or self._plain.is_closing()):
            self._plain.pause_reading()
        if self._session is not None:
            self._session.pause_writing()

    def resume_writing(self) -> None:
        """The plain transport wants more."""
        self._blocked = False
        self._weigh()
        self._loop.call_soon(self._resume)
        if self._session is not None:
            self._session.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits; nothing is called afterwards."""
        self._ended, self._reads = True, False
        self._give_up(exc or ConnectionResetError("lost in the handshake"))
        if self._timer is not None:
            self._timer.cancel()
        session, self._session = self._session, None
        if session is not None:
            session.connection_lost(exc or self._error)

    # -- the transport of the session ------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Of TLS its `ssl_object`, else what the plain transport tells."""
        return self._object if name == "ssl_object" else self._plain.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As the plain transport's, in encrypted octets."""
        self._plain.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """So many of these wait to be sent."""
        return self._plain.get_write_buffer_size()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt it and send it."""
        if self._ended:
            return
        try:
            if len(data) <= _RECORD_OCTETS:
                self._object.write(data)
                self._plain.write(self._outgoing.read())
                return
            view = memoryview(data)
            for at in range(0, len(view), _RECORD_OCTETS):
                self._object.write(view[at : at + _RECORD_OCTETS])
                self._plain.write(self._outgoing.read())
        except ssl.SSLError as error:
            self._fail(error)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send several without putting them together first, as asyncio's own would."""
        for data in list_of_data:
            self.write(data)

    def pause_reading(self) -> None:
        """Have the session receive nothing more; what is here already waits."""
        self._paused, self._reads = True, False
        if not self._plain.is_closing():
            self._plain.pause_reading()

    def resume_reading(self) -> None:
        """Go on, at the end of this turn of the loop."""
        self._paused = False
        self._weigh()
        self._loop.call_soon(self._resume)

    def is_closing(self) -> bool:
        """Whether the end has begun."""
        return self._ended

    def close(self) -> None:
        """Send what was written, end TLS and this half of TCP, and wait for the other half.

        To close at once could lose our last words to a reset, where the other side still sends.
        """
        if self._ended:
            return
        self._ended, self._reads = True, False
        with suppress(ssl.SSLError):  # it waits for the other side's close_notify; ours is written
            self._object.unwrap()
        self._flush()
        if self._eof:
            self._plain.close()
        elif not self._plain.is_closing():
            self._plain.write_eof()
            self._plain.resume_reading()
            self._timer = self._loop.call_later(_SHUTDOWN_SECONDS, self._cut)

    def abort(self) -> None:
        """Cut the connection."""
        self._ended, self._reads = True, False
        self._plain.abort()

    def _cut(self) -> None:
        """Not a slow link, while there is more to send: the session's owner sees whether it gets further."""
        if self._plain.get_write_buffer_size():
            self._timer = self._loop.call_later(_SHUTDOWN_SECONDS, self._cut)
        else:
            self._plain.abort()

    # -- OpenSSL ---------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        try:
            for at in range(0, len(data), _RECORD_OCTETS):
                self._incoming.write(data[at : at + _RECORD_OCTETS])
                self._step()
                if not (self._reads or self._done):
                    self._waiting = data[at + _RECORD_OCTETS :]
                    break
        except ssl.SSLError as error:
            self._fail(error)

    def _step(self) -> None:
        """Go as far as what is here allows; raises ssl.SSLError."""
        try:
            if not self._done:
                self._read()
            else:
                self._object.do_handshake()
                if done := self._settle():
                    done(None)
                return  # the rest leaves with the first word, or as whoever waits goes on
        except ssl.SSLWantReadError:
            pass
        if self._outgoing.pending and not self._ended:
            self._flush()

    def _read(self) -> None:
        while self._reads:
            try:
                octets = self._object.read(_RECORD_OCTETS)
            except ssl.SSLZeroReturnError:
                octets = b""
            if not octets:
                self._end_of_input()
            elif self._session is not None:
                self._session.data_received(octets)
                if not self._incoming.pending:  # and a record is not more than was asked for
                    return

    def _resume(self) -> None:
        """What waited first, then what comes."""
        if self._reads and self._incoming.pending:  # which OpenSSL has not seen
            try:
                self._step()
            except ssl.SSLError as error:
                self._fail(error)
        if self._reads and self._waiting:
            waiting, self._waiting = self._waiting, b""
            self._take(waiting)
        if not self._reads:
            return
        if self._eof:
            self._end_of_input()
        elif not self._plain.is_closing():
            self._plain.resume_reading()

    def _end_of_input(self) -> None:
        """The session hears nothing more, and may still have something to say (RFC 8446 §6.1)."""
        self._heard, self._reads = True, False
        if self._session is None or not self._session.eof_received():
            self.close()

    def _flush(self) -> None:
        if octets := self._outgoing.read():
            self._plain.write(octets)

    def _fail(self, error: Exception) -> None:
        """Send the alert, if there is one, and close."""
        if self._ended:
            return
        self._error = error
        self._ended, self._reads = True, False
        self._flush()
        self._give_up(error)
        self._plain.close()


def reason_of(error: Exception) -> str:
    """Why a handshake came to nothing, in a word for the log."""
    return getattr(error, "reason", None) or type(error).__name__


def _tell(shaken: asyncio.Future[None], error: Exception | None) -> None:
    if shaken.done():  # cancelled
        return
    if error is None:
        shaken.set_result(None)
    else:
        shaken.set_exception(error)
