"""Connections under TLS: where it begins, and how it ends; over sockets and on the real store."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from mailstack.mail.spool import PART_OCTETS
from tests.pop3.transcript import dotted


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


@pytest.mark.parametrize("implicit_tls", [True, False])
async def test_commands_that_come_with_the_end_of_the_handshake_are_obeyed(
    start, server_context, client_context, implicit_tls
):
    async with start(tls=server_context, implicit_tls=implicit_tls) as rig:
        client = await (rig.connect_silently() if implicit_tls else rig.connect())
        if not implicit_tls:
            assert await client.ask(b"STLS") == b"+OK begin TLS\r\n"
        arrived, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        half = client_context.wrap_bio(arrived, to_send, server_hostname="localhost")

        async def done(step) -> bytes:
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    client.send(to_send.read())
                    async with asyncio.timeout(5):
                        arrived.write(await client.reader.read(65_536))

        await done(half.do_handshake)
        half.write(b"NOOP\r\nQUIT\r\n")
        client.send(to_send.read())  # in one segment with the client's Finished
        got = b""
        while some := await done(half.read):
            got += some
        greeting = b"+OK POP3 server ready\r\n" if implicit_tls else b""
        assert got == greeting + b"-ERR log in first\r\n+OK bye\r\n"


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
