"""Who may connect: how many from where, not before the greeting, and who makes room for others."""

from __future__ import annotations

import asyncio
import socket

import pytest

from mailstack import crowd
from tests.smtp.doubles import Connection
from tests.smtp.rig import Rig

FROM_THERE = b"421 4.7.0 too many connections from your address or network, try again later\r\n"


# -- connections -------------------------------------------------------------------------------------


async def test_one_connection_too_many_is_refused_in_place_of_the_greeting():
    first = Connection(max_connections_per_address=1)
    second = Connection(reception=first.reception)
    assert second.transport.said == FROM_THERE
    assert second.transport.closing
    other = Connection(reception=first.reception, address="198.51.100.1")
    assert other.transport.said.startswith(b"220 ")
    first.receiver.connection_lost(None)
    second.receiver.connection_lost(None)
    assert Connection(reception=first.reception).transport.said.startswith(b"220 ")


# -- when there is no room ---------------------------------------------------------------------------

GIVES_WAY = b"421 4.4.2 nothing was said while others wait, goodbye\r\n"
FULL = b"421 4.7.0 too many connections, try again later\r\n"


@pytest.mark.parametrize("under_tls", [False, True])
async def test_who_says_nothing_makes_room_for_a_newcomer(start, tls, monkeypatch, under_tls):
    monkeypatch.setattr(crowd, "SILENT_SECONDS", 1000.0)  # as long as nobody is to count as silent
    async with start(tls=tls, max_connections=3) as rig:
        connect = rig.connect_under_tls if under_tls else rig.connect
        oldest, busy, trickling = [await connect() for _ in range(3)]
        await refused(rig)
        await busy.trio()
        await busy.reply(b"DATA")
        for _ in range(12):
            trickling.send(b"N")
            await asyncio.sleep(0.05)
        newcomers = []
        monkeypatch.setattr(crowd, "SILENT_SECONDS", 0.5)
        for silent in (oldest, trickling):
            newcomers.append(await rig.connect())
            assert await silent.rest() == GIVES_WAY
        monkeypatch.setattr(crowd, "SILENT_SECONDS", 1000.0)
        await refused(rig)
        assert (await busy.reply(b"x\r\n.")).startswith(b"250 2.0.0 ")
        for newcomer in newcomers:
            assert (await newcomer.reply(b"NOOP")).startswith(b"250 ")
        await rig.until(lambda: rig.listener.sessions == 3)
        for peer in (oldest, busy, trickling, *newcomers):
            await peer.close()


async def test_who_does_not_go_on_with_the_handshake_makes_room(start, tls, monkeypatch):
    monkeypatch.setattr(crowd, "SILENT_SECONDS", 0.1)
    async with start(tls=tls, max_connections=1) as rig:
        stalling = await rig.connect()
        await stalling.reply(b"EHLO client.example")
        await stalling.reply(b"STARTTLS")
        stalling.send(b"\x16\x03\x01")
        await asyncio.sleep(0.2)
        newcomer = await rig.connect()
        assert (await newcomer.reply(b"NOOP")).startswith(b"250 ")
        await rig.until(lambda: not rig.reception.tasks)
        await rig.until(lambda: rig.listener.sessions == 1)
        for peer in (stalling, newcomer):
            await peer.close()


async def test_who_does_not_go_on_with_the_content_makes_room_in_the_end(start, monkeypatch):
    monkeypatch.setattr(crowd, "SILENT_SECONDS", 0.02)
    async with start(max_connections=1) as rig:
        stalling = await rig.connect()
        await stalling.trio()
        await stalling.reply(b"DATA")
        await asyncio.sleep(0.1)
        await refused(rig)
        await asyncio.sleep(0.4)
        newcomer = await rig.connect()
        assert await stalling.rest() == GIVES_WAY
        assert await rig.mail("jones") == []
        for peer in (stalling, newcomer):
            await peer.close()


async def test_between_chunks_nobody_is_silent(start, monkeypatch):
    monkeypatch.setattr(crowd, "SILENT_SECONDS", 0.1)
    async with start(max_connections=1) as rig:
        peer = await rig.connect()
        await peer.trio()
        await peer.reply(b"BDAT 0")
        await asyncio.sleep(0.2)
        await refused(rig)
        assert (await peer.reply(b"BDAT 0 LAST")).startswith(b"250 2.0.0 ")
        await peer.close()


async def refused(rig: Rig) -> None:
    """One more connection hears that there is no room."""
    peer = await rig.connect(greeted=False)
    assert await peer.rest() == FULL
    await peer.close()


# -- before the greeting -----------------------------------------------------------------------------

EARLY = b"554 5.5.1 nothing may be said before the greeting\r\n"


async def test_a_stranger_is_greeted_after_a_moment():
    connection = Connection(greeting_delay_milliseconds=20)
    assert connection.transport.said == b""
    await asyncio.sleep(0.1)
    assert connection.transport.said == b"220 mx.example.org ESMTP mailstack\r\n"
    assert await connection.feed(b"NOOP\r\n") == b"250 2.0.0 ok\r\n"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", ""])
async def test_a_peer_on_this_machine_is_greeted_at_once(address):
    connection = Connection(greeting_delay_milliseconds=20, address=address)
    assert connection.transport.said.startswith(b"220 ")


@pytest.mark.parametrize("octets", [b"E", b"HELO x\r\n", b"POST / HTTP/1.1\r\n", b"\x16\x03\x01"])
async def test_a_stranger_that_speaks_first_is_turned_away(octets):
    connection = Connection(greeting_delay_milliseconds=20)
    assert await connection.feed(octets) == EARLY
    assert connection.transport.over
    await asyncio.sleep(0.1)
    connection.receiver.data_received(b"MAIL FROM:<>\r\n")
    assert connection.transport.said == EARLY


@pytest.mark.parametrize("end", ["eof", "lost", "stop"])
async def test_a_stranger_that_leaves_before_the_greeting_leaves_nothing_behind(end):
    connection = Connection(greeting_delay_milliseconds=20)
    if end == "eof":
        connection.receiver.eof_received()
    elif end == "stop":
        connection.receiver.end(b"421 4.3.2 x\r\n", linger=False)
    connection.receiver.connection_lost(None)
    said = connection.transport.said
    await asyncio.sleep(0.1)
    assert connection.transport.said == said
    assert not connection.reception.connections


async def test_octets_that_are_there_when_the_connection_is_are_too_early(start):
    async with start() as rig:
        early = socket.create_connection(rig.address)
        early.sendall(b"HELO x\r\nMAIL FROM:<>\r\n")  # while the loop, which is ours, accepts nothing
        early.setblocking(False)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
            assert await loop.sock_recv(early, 1000) == EARLY
            assert await loop.sock_recv(early, 1000) == b""
        early.close()
        await rig.until(lambda: not rig.listener.sessions)
