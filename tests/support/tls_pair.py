"""A session's TLS and a client's, with nothing between them but the test."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable

from mailstack.tls import Tls

KIB = 1024


class Plain(asyncio.Transport):
    """A transport of the loop, whose other end is the test."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.unsent = 0
        self.reading = False
        self.said: list[str] = []

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        pass

    def is_closing(self) -> bool:
        return "close" in self.said or "abort" in self.said

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.said
        self.sent += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write_eof(self) -> None:
        self.said.append("eof")

    def close(self) -> None:
        self.said.append("close")

    def abort(self) -> None:
        self.said.append("abort")


class Session(asyncio.Protocol):
    """What the session is told."""

    def __init__(self) -> None:
        self.got = b""
        self.told: list[str] = []
        self.on_data: Callable[[], None] = lambda: None
        self.has_more_to_say = False

    def data_received(self, data: bytes) -> None:
        assert "eof" not in self.told
        self.got += data
        self.on_data()

    def eof_received(self) -> bool:
        self.told.append("eof")
        return self.has_more_to_say

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")


class Pair:
    """A server's side and a client, with nothing between them but the test."""

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext) -> None:
        self.session, self.plain = Session(), Plain()
        self.tls = Tls(self.session, server, asyncio.get_running_loop())
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def said(self) -> bytes:
        """What the client wants to send, encrypted."""
        return self.outgoing.read()

    def hears(self) -> None:
        """The client receives what was sent."""
        self.incoming.write(self.plain.sent)
        self.plain.sent = b""

    def read(self) -> bytes:
        """All that the client is told."""
        self.hears()
        got = b""
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while octets := self.client.read(64 * KIB):
                got += octets
        return got

    async def shake_hands(self, *, and_say: bytes = b"") -> None:
        """The handshake; what the client says comes with its last octets."""
        shaken = asyncio.ensure_future(self.tls.shake_hands(self.plain))
        await asyncio.sleep(0)
        for _ in range(3):
            try:
                self.client.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.tls.data_received(self.said())
                await asyncio.sleep(0)
                self.hears()
        if and_say:
            self.client.write(and_say)
        self.tls.data_received(self.said())
        await shaken
