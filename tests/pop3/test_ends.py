"""What ends while something is under way: a lock during the login, a session while it is kicked."""

from __future__ import annotations

import asyncio

import pytest

from tests.pop3.transcript import sized


@pytest.mark.parametrize("remembered", [False, True])
async def test_a_lock_that_is_lost_during_the_login_lets_nobody_in(start, remembered):  # RFC 1939 §4
    """The maildrop may be another session's as soon as the lock is lost."""
    async with start() as rig:
        await rig.deliver(sized(50))
        if remembered:
            await (await rig.log_in()).ask(b"QUIT")
        rig.store.lock_maildrop_at_once = lambda *_words, **_options: None  # as on PostgreSQL
        look = rig.store.open_maildrop

        async def losing(account_id):
            for tell in rig.store.on_locks_lost:
                tell()
            await asyncio.sleep(0)  # it is told from a thread
            return await look(account_id)

        rig.store.open_maildrop = losing
        client = await rig.connect()
        assert (await client.log_in()).startswith(b"-ERR [SYS/TEMP] ")
        assert await client.ask(b"STAT") == b"-ERR log in first\r\n"
        rig.store.open_maildrop = look
        assert (await client.log_in()).startswith(b"+OK 1 message ")


async def test_a_session_that_ends_by_itself_keeps_no_kick_waiting(start):
    async with start() as rig:
        await rig.log_in()
        connection = next(iter(rig.listener._crowd))

        def wanted(_told):
            connection.abort("idle")  # its end is told in the next turn of the loop
            return True

        async with asyncio.timeout(1):
            await rig.listener.kick(wanted)
        assert rig.listener.sessions == 0
        await rig.log_in()
