"""Connections under TLS: where it begins, and how it ends; over sockets and on the real store."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from mailstack.mail.spool import PART_OCTETS
from tests.pop3.rig import PATIENCE, Client
from tests.pop3.transcript import SECRET, dotted
from tests.support.tls_pair import KIB


async def test_a_new_context_serves_the_next_handshake(start, server_context, client_context):
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # has no certificate: its handshakes fail
    async with start(tls=other, implicit_tls=True) as rig:
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await rig.connect(client_context)
        rig.tls = server_context
        first = await rig.log_in(client_context)
        rig.tls = other
        assert await first.ask(b"NOOP") == b"+OK\r\n"  # sessions go on


async def test_octets_that_come_before_the_answer_to_stls_are_never_obeyed(start, server_context):
    async with start(tls=server_context) as rig:
        client = await rig.connect()
        connection = next(iter(rig.listener._crowd))
        connection.data_received(b"STLS\r\n")
        connection.data_received(b"NOOP\r\n")  # in another segment, in the same turn of the loop
        assert await client.rest() == b"-ERR nothing may follow STLS before the handshake\r\n"


async def test_octets_that_are_no_handshake_end_the_connection(start, server_context):
    async with start(tls=server_context) as rig:
        client = await rig.connect()
        assert await client.ask(b"STLS") == b"+OK begin TLS\r\n"
        client.send(b"USER mrose\r\nPASS secret\r\n")
        assert b"+OK" not in await client.ended()
        await rig.until_sessions(0)


class ByHand:
    """A client whose records leave when it says so, over a connection that is plain."""

    def __init__(self, client: Client, context: ssl.SSLContext) -> None:
        self._client = client
        self._arrived, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._arrived, self._to_send, server_hostname="localhost")

    def flush(self) -> None:
        if self._to_send.pending:
            self._client.send(self._to_send.read())

    async def done(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self.flush()
                async with asyncio.timeout(PATIENCE):
                    self._arrived.write(await self._client.reader.read(65_536))

    async def rest(self) -> bytes:
        got = b""
        with contextlib.suppress(ssl.SSLZeroReturnError):  # how a clean end is told to who has ended before
            while some := await self.done(self.tls.read):
                got += some
        return got


@pytest.mark.parametrize("implicit_tls", [True, False])
async def test_commands_that_come_with_the_end_of_the_handshake_are_obeyed(
    start, server_context, client_context, implicit_tls
):
    async with start(tls=server_context, implicit_tls=implicit_tls) as rig:
        client = await (rig.connect_silently() if implicit_tls else rig.connect())
        if not implicit_tls:
            assert await client.ask(b"STLS") == b"+OK begin TLS\r\n"
        by_hand = ByHand(client, client_context)
        await by_hand.done(by_hand.tls.do_handshake)
        by_hand.tls.write(b"NOOP\r\nQUIT\r\n")
        by_hand.flush()  # in one segment with the client's Finished
        greeting = b"+OK POP3 server ready\r\n" if implicit_tls else b""
        assert await by_hand.rest() == greeting + b"-ERR log in first\r\n+OK bye\r\n"


@pytest.mark.parametrize("ends", ["close_notify", "eof"])
async def test_a_client_that_half_closes_behind_pass_has_its_answer(
    start, server_context, client_context, ends
):
    """RFC 8446 §6.1; the answer to PASS waits for the store, and for a hash."""
    async with start(tls=server_context, implicit_tls=True) as rig:
        client = await rig.connect_silently()
        by_hand = ByHand(client, client_context)
        await by_hand.done(by_hand.tls.do_handshake)
        assert (await by_hand.done(by_hand.tls.read)).startswith(b"+OK")  # else it is there for `unwrap`
        by_hand.tls.write(f"USER mrose\r\nPASS {SECRET}\r\n".encode())
        if ends == "close_notify":
            with contextlib.suppress(ssl.SSLWantReadError):
                by_hand.tls.unwrap()
        by_hand.flush()
        if ends == "eof":
            client.writer.write_eof()
        assert (await by_hand.rest()).count(b"+OK") == 2


async def test_stls_and_a_message_of_many_parts(start, server_context, client_context):
    content = dotted(5 * PART_OCTETS)
    async with start(tls=server_context) as rig:
        await rig.deliver(content)
        client = await rig.connect()
        assert await client.ask(b"STLS") == b"+OK begin TLS\r\n"
        await client.start_tls(client_context)
        assert (await client.log_in()).startswith(b"+OK")
        assert await client.body(b"RETR 1") == content
        assert (await client.ask(b"QUIT")).startswith(b"+OK")
        assert await client.rest() == b""  # a clean end of TLS, no cut


async def test_a_tls_connection_that_is_cut_frees_the_maildrop(start, server_context, client_context):
    async with start(tls=server_context, implicit_tls=True) as rig:
        first = await rig.log_in(client_context)
        first.writer.transport.abort()
        await rig.until_sessions(0)
        assert await (await rig.log_in(client_context)).ask(b"STAT") == b"+OK 0 0\r\n"


async def test_an_idle_session_has_no_buffers(start, server_context, client_context):
    """Of what Python allocates; OpenSSL itself takes 16 KiB, which nothing here can change."""
    async with start(tls=server_context, implicit_tls=True) as rig:
        with contextlib.ExitStack() as stack:

            def greeted(_: Any = None) -> ssl.SSLSocket:
                plain = socket.create_connection(rig.address, timeout=PATIENCE)
                connection = client_context.wrap_socket(plain, server_hostname="localhost")
                assert connection.recv(100).startswith(b"+OK")
                return stack.enter_context(connection)

            def several() -> None:
                for _ in range(20):
                    greeted()

            await asyncio.to_thread(several)
            tracemalloc.start()
            try:
                await asyncio.to_thread(several)
                assert rig.listener.sessions == 40
                assert tracemalloc.get_traced_memory()[0] / 20 < 8 * KIB  # the clients' sockets are in it
            finally:
                tracemalloc.stop()
