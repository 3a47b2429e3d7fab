"""What the clock does to a session: silent peers, slow peers, and a slow store."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from mailstack.smtp import receiver
from tests.smtp.rig import Gate


async def test_a_silent_peer_is_told_and_cut_off(start):
    async with start(idle_seconds=0.2) as rig:
        peer = await rig.connect()
        assert await peer.rest() == b"421 4.4.2 nothing was said for too long, goodbye\r\n"
        await rig.until(lambda: not rig.listener.sessions)


async def test_a_silent_peer_is_cut_off_within_content(start):
    async with start(idle_seconds=0.2) as rig:
        peer = await rig.connect()
        await peer.trio()
        await peer.reply(b"DATA")
        peer.send(b"Subject: x\r\n")
        assert (await peer.rest()).startswith(b"421 4.4.2 ")
        await rig.until(lambda: not rig.listener.sessions)
        assert await rig.mail("jones") == []


async def test_content_may_come_slowly(start):
    async with start(idle_seconds=0.3, min_octets_per_second=10) as rig:
        peer = await rig.connect()
        await peer.trio()
        await peer.reply(b"DATA")
        for _ in range(10):
            peer.send(b"x\r\n")
            await asyncio.sleep(0.1)
        assert (await peer.reply(b".")).startswith(b"250 2.0.0 ")


async def test_a_command_may_not(start):
    async with start(idle_seconds=0.3) as rig:
        peer = await rig.connect()
        while not peer.reader.at_eof() and not peer.reader._buffer:
            peer.send(b"x")
            await asyncio.sleep(0.1)
        assert (await peer.rest()).startswith(b"421 4.4.2 ")


async def test_a_slow_store_is_not_the_peers_silence(start):
    async with start(idle_seconds=0.2) as rig:
        gate = Gate(rig)
        peer = await rig.connect()
        await gate.hold(peer)
        await asyncio.sleep(0.5)
        gate.open()
        assert (await peer.one_reply()).startswith(b"250 2.0.0 ")
        assert (await peer.reply(b"NOOP")).startswith(b"250 2.0.0 ")


async def test_a_peer_that_reads_no_replies_is_cut_off_in_the_end(start, monkeypatch):
    monkeypatch.setattr(receiver, "_LINGER_SECONDS", 0.2)
    async with start(idle_seconds=0.3) as rig:
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.connect(rig.address)
        deaf.setblocking(False)
        commands = b"HELP\r\n" * 10_000
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(0.5):
                while True:
                    await asyncio.get_running_loop().sock_sendall(deaf, commands)
        await rig.until(lambda: not rig.listener.sessions)
        deaf.close()


async def test_a_peer_that_was_hung_up_on_may_read_why_but_not_stay(start, monkeypatch):
    monkeypatch.setattr(receiver, "_LINGER_SECONDS", 0.2)
    async with start(idle_seconds=0.4) as rig:
        peer = await rig.connect()
        peer.send(b"POST / HTTP/1.1\r\n" + b"x" * 1_000_000)
        assert (await peer.rest()).startswith(b"554 5.5.1 ")
        await rig.until(lambda: not rig.listener.sessions)
