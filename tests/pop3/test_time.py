"""Autologout, vanished peers, and the end of the service; over sockets and on the real store."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from mailstack.errors import StoreUnavailable
from mailstack.mail.spool import PART_OCTETS
from tests.pop3.rig import blocking_login
from tests.pop3.transcript import sized

# -- time ----------------------------------------------------------------------------------------


async def test_autologout_says_nothing_and_deletes_nothing(start):  # RFC 1939 §3
    async with start(idle_seconds=0.4) as rig:
        await rig.deliver(sized(50))
        client = await rig.log_in()
        assert (await client.ask(b"DELE 1")).startswith(b"+OK")
        assert await client.ended() == b""
        assert await rig.messages() == 1
        await rig.log_in()


async def test_a_stranger_is_waited_for_less_long(start):
    async with start(idle_seconds=30.0, login_idle_seconds=0.2) as rig:
        stranger = await rig.connect()
        friend = await rig.log_in()
        assert await stranger.ended() == b""
        assert await friend.ask(b"NOOP") == b"+OK\r\n"


async def test_half_a_command_does_not_keep_a_stranger_alive(start):
    async with start(login_idle_seconds=0.3) as rig:
        stranger = await rig.connect()
        for _ in range(12):
            if not stranger.writer.transport.is_closing():
                stranger.send(b"x")
            await asyncio.sleep(0.05)
        assert rig.listener.sessions == 0


async def test_commands_keep_a_session_alive(start):
    async with start(idle_seconds=0.4) as rig:
        client = await rig.log_in()
        for _ in range(12):
            await asyncio.sleep(0.1)
            assert await client.ask(b"NOOP") == b"+OK\r\n"


async def test_accepted_connections_have_keepalive_within_75_seconds(start):
    async with start() as rig:
        await rig.connect()
        accepted = next(iter(rig.listener._crowd))._transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle, interval, count = (
            accepted.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + interval * count <= 75


async def test_the_maildrop_is_free_at_once_while_the_store_is_still_asked(start, monkeypatch):
    async with start() as rig:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow(account_id, last_uid, **surrogates):
            begun.set()
            await go_on.wait()
            raise StoreUnavailable("too late")

        monkeypatch.setattr(rig.store, "listing", slow)
        first = await rig.log_in()
        first.send(b"LIST\r\n")
        await begun.wait()
        first.reset()
        other = await rig.connect()
        async with asyncio.timeout(5):
            while not (await other.log_in()).startswith(b"+OK"):
                pass
        assert rig.listener.sessions == 2  # the first still waits
        go_on.set()
        await rig.until_sessions(1)


async def test_quit_frees_the_maildrop_before_the_end_of_tls(start, server_context, client_context):
    async with start(tls=server_context, implicit_tls=True) as rig:
        with await asyncio.to_thread(blocking_login, rig.address, client_context) as first:
            first.sendall(b"QUIT\r\n")  # and it neither reads nor answers the end of TLS
            other = await rig.connect(client_context)
            async with asyncio.timeout(5):
                while not (await other.log_in()).startswith(b"+OK"):
                    pass
            assert rig.listener.sessions == 2


# -- shutting down -------------------------------------------------------------------------------


async def test_drain_ends_idle_sessions_at_once_and_lets_a_command_finish(start, monkeypatch):
    async with start() as rig:
        await rig.deliver(sized(50))
        idle = await rig.connect()
        busy = await rig.log_in()
        assert (await busy.ask(b"DELE 1")).startswith(b"+OK")
        begun = asyncio.Event()
        expunge = rig.store.expunge

        async def slow(account_id, uids, **lock):
            begun.set()
            await asyncio.sleep(0.2)
            await expunge(account_id, uids, **lock)

        monkeypatch.setattr(rig.store, "expunge", slow)
        busy.send(b"QUIT\r\n")
        await begun.wait()
        await rig.listener.drain(5.0)
        assert rig.listener.sessions == 0
        assert await idle.rest() == b""
        assert (await busy.rest()).startswith(b"+OK bye")
        assert await rig.messages() == 0
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*rig.address)


async def test_drain_cuts_what_does_not_end(start):
    async with start() as rig:
        await rig.deliver(sized(40 * PART_OCTETS))
        client = await rig.log_in()
        client.writer.transport.pause_reading()
        client.send(b"RETR 1\r\n")
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await rig.listener.drain(0.1)
        assert rig.listener.sessions == 0
        assert time.monotonic() - began < 1.5
