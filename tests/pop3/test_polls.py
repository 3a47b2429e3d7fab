"""Polls: a remembered login costs nothing, and ends with the password or the account that it was for."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
from scramp import ScramClient
from sqlalchemy import select

from mailstack.auth.passwords import Verifier, hash_password
from mailstack.errors import Permanent, StoreUnavailable
from mailstack.mail.address import parse_mailbox
from mailstack.store import accounts, aliases
from mailstack.store.tables import entry
from tests.pop3.rig import Client, Rig
from tests.pop3.transcript import NAME, SECRET, sized

MAILBOX = parse_mailbox(NAME)


@asynccontextmanager
async def polling(start, *, at_once: bool = True) -> AsyncIterator[Rig]:
    """A rig whose account has polled already; its polls go through a thread unless `at_once`."""
    async with start() as rig:
        await (await rig.log_in()).ask(b"QUIT")
        await rig.store.check()  # opens the database for those that ask no thread
        assert rig.store.open_maildrop_at_once(rig.account_id) is not None
        if not at_once:
            rig.store.open_maildrop_at_once = lambda _account_id: None
        yield rig


async def test_a_poll_asks_no_thread(start):
    async with polling(start) as rig:
        await rig.deliver(sized(100))
        go = threading.Event()
        busy = [asyncio.ensure_future(rig.store.read(lambda _: go.wait(10))) for _ in range(8)]
        client = await rig.log_in()
        assert await client.ask(b"STAT") == b"+OK 1 100\r\n"
        assert await client.ask(b"QUIT") == b"+OK bye\r\n"
        assert not any(each.done() for each in busy)
        go.set()
        assert all(await asyncio.gather(*busy))


async def test_a_poll_that_fails_does_not_keep_the_lock(start):
    async with polling(start) as rig:
        look = rig.store.open_maildrop_at_once

        def fail(_account_id):
            raise RuntimeError("a bug")

        rig.store.open_maildrop_at_once = fail
        client = await rig.connect()
        assert await client.log_in() == b"-ERR [SYS/TEMP] local error, try again later\r\n"
        rig.store.open_maildrop_at_once = look
        assert (await client.log_in()).startswith(b"+OK")


async def test_polls_keep_to_the_login_delay(start):  # RFC 2449 §6.5
    async with start(login_delay_seconds=60) as rig:
        await (await rig.log_in()).ask(b"QUIT")
        await rig.store.check()
        assert rig.store.open_maildrop_at_once(rig.account_id) is not None
        client = await rig.connect()
        assert (await client.log_in()).startswith(b"-ERR [LOGIN-DELAY] ")


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_password_that_was_changed_is_wrong_from_the_next_poll_on(start, at_once):
    async with polling(start, at_once=at_once) as rig:
        with rig.store.database.writing() as connection:
            accounts.set_password(connection, MAILBOX, hash_password("another"))
        client = await rig.connect()
        assert await client.log_in() == b"-ERR [AUTH] wrong name or password\r\n"
        assert (await (await rig.connect()).log_in("another")).startswith(b"+OK")  # nobody holds the lock


@pytest.mark.parametrize("at_once", [True, False])
async def test_an_account_that_was_disabled_is_shut_from_the_next_poll_on(start, at_once):
    async with polling(start, at_once=at_once) as rig:
        with rig.store.database.writing() as connection:
            accounts.disable(connection, MAILBOX)
        client = await rig.connect()
        assert await client.log_in() == b"-ERR [AUTH] wrong name or password\r\n"
        with rig.store.database.writing() as connection:
            accounts.enable(connection, MAILBOX)
        assert (await client.log_in()).startswith(b"+OK")


@pytest.mark.parametrize("at_once", [True, False])
async def test_an_account_that_was_removed_is_unknown_from_the_next_poll_on(start, at_once):
    async with polling(start, at_once=at_once) as rig:
        with rig.store.database.writing() as connection:
            accounts.remove_account(connection, MAILBOX)
        assert await (await rig.connect()).log_in() == b"-ERR [AUTH] wrong name or password\r\n"
        with rig.store.database.writing() as connection:
            accounts.add_account(connection, MAILBOX, password_hash=hash_password("another"))
        assert await (await rig.connect()).log_in() == b"-ERR [AUTH] wrong name or password\r\n"


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_name_that_leads_to_others_too_logs_nobody_in_from_the_next_poll_on(start, at_once):
    another, later = parse_mailbox("another@example.org"), parse_mailbox("later@example.org")
    async with polling(start, at_once=at_once) as rig:
        with rig.store.database.writing() as connection:
            accounts.add_account(connection, another, password_hash=hash_password("another"))
            accounts.rename_account(connection, MAILBOX, later)
        for _ in range(2):  # by the alias that the rename left, to which the first of them belongs no more
            client = await rig.log_in()
            assert await client.ask(b"QUIT") == b"+OK bye\r\n"
        with rig.store.database.writing() as connection:
            aliases.add_alias(connection, MAILBOX, [another])
        client = await rig.connect()
        assert await client.log_in() == b"-ERR [AUTH] wrong name or password\r\n"
        with rig.store.database.writing() as connection:
            aliases.remove_alias(connection, MAILBOX, [another])
        assert (await client.log_in()).startswith(b"+OK")


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_name_that_is_renamed_and_shared_at_once_logs_nobody_in(start, at_once):
    another, later = parse_mailbox("another@example.org"), parse_mailbox("later@example.org")
    async with polling(start, at_once=at_once) as rig:
        with rig.store.database.writing() as connection:
            accounts.add_account(connection, another, password_hash=hash_password("another"))
            accounts.rename_account(connection, MAILBOX, later)
            aliases.add_alias(connection, MAILBOX, [another])
        assert await (await rig.connect()).log_in() == b"-ERR [AUTH] wrong name or password\r\n"


async def test_polls_by_an_alias_compute_no_hash(start, monkeypatch):
    checked = []

    async def verify(self, secret, password_hash):
        checked.append(password_hash)
        return True

    monkeypatch.setattr(Verifier, "verify", verify)
    async with polling(start) as rig:
        with rig.store.database.writing() as connection:
            accounts.rename_account(connection, MAILBOX, parse_mailbox("later@example.org"))
        for _ in range(3):
            await (await rig.log_in()).ask(b"QUIT")
        assert len(checked) == 1


async def test_a_password_that_is_changed_within_scrams_last_step_lets_nobody_in(start):
    async with start() as rig:
        client = await rig.connect()
        half = ScramClient(["SCRAM-SHA-256"], NAME, SECRET)
        first = base64.b64encode(half.get_client_first().encode())
        half.set_server_first(
            base64.b64decode((await client.ask(b"AUTH SCRAM-SHA-256 " + first))[2:]).decode()
        )
        assert (await client.ask(base64.b64encode(half.get_client_final().encode()))).startswith(b"+ ")
        with rig.store.database.writing() as connection:
            accounts.set_password(connection, MAILBOX, hash_password("another"))
        assert await client.ask(b"") == b"-ERR [AUTH] wrong name or password\r\n"
        assert (await (await rig.connect()).log_in("another")).startswith(b"+OK")


PLAIN = b"AUTH PLAIN " + base64.b64encode(f"\0{NAME}\0{SECRET}".encode())


@pytest.mark.parametrize("last_step", [f"PASS {SECRET}".encode(), PLAIN])
@pytest.mark.parametrize(
    "change", [partial(accounts.set_password, password_hash=hash_password("another")), accounts.disable]
)
async def test_what_is_changed_while_a_login_waits_counts(start, monkeypatch, last_step, change):
    async with start() as rig:
        lock = rig.store.lock_maildrop

        async def late(account_id, **options):
            """The lock, which is taken once the password has been found right."""
            with rig.store.database.writing() as connection:
                change(connection, MAILBOX)
            return await lock(account_id, **options)

        client = await rig.connect()
        if last_step is not PLAIN:
            await client.ask(f"USER {NAME}".encode())
        monkeypatch.setattr(rig.store, "lock_maildrop", late)
        assert await client.ask(last_step) == b"-ERR [AUTH] wrong name or password\r\n"
        monkeypatch.undo()
        with rig.store.database.writing() as connection:
            accounts.set_password(connection, MAILBOX, hash_password("a third"))
            with suppress(Permanent):
                accounts.enable(connection, MAILBOX)
        assert (await client.log_in("a third")).startswith(b"+OK")  # nobody holds the lock


@pytest.mark.parametrize("at_once", [True, False])
async def test_who_was_turned_away_is_not_logged_as_the_owner(start, caplog, at_once):
    caplog.set_level("INFO", logger="mailstack")
    async with polling(start, at_once=at_once) as rig:
        await rig.until_sessions(0)
        with rig.store.database.writing() as connection:
            accounts.set_password(connection, MAILBOX, hash_password("another"))
        caplog.clear()
        client = await rig.connect()
        assert await client.log_in() == b"-ERR [AUTH] wrong name or password\r\n"
        await client.ask(b"QUIT")
        await rig.until_sessions(0)
    [fields] = [each.fields for each in caplog.records if each.getMessage() == "pop3.session"]
    assert (fields["account"], fields["refused"]) == (None, 1)


async def read(rig: Rig) -> list[int]:
    """The uids of what counts as downloaded, once all sessions are over."""
    await rig.until_sessions(0)
    await rig.store.reads.flush()
    with rig.store.database.reading() as connection:
        wanted = select(entry.c.uid).where(entry.c.first_read_at.is_not(None)).order_by(entry.c.uid)
        return list(connection.execute(wanted).scalars())


async def test_retr_is_remembered_as_read_and_top_is_not(start):
    async with start() as rig:
        await rig.deliver(*[sized(100)] * 4)
        client = await rig.log_in()
        assert len(await client.body(b"TOP 1 1000")) == 100
        assert len(await client.body(b"RETR 2")) == 100
        assert len(await client.body(b"TOP 3 1000")) == 100  # from what was read ahead
        assert len(await client.body(b"RETR 4")) == 100
        assert await client.ask(b"QUIT") == b"+OK bye\r\n"
        assert await read(rig) == [2, 4]


async def test_what_was_sent_counts_as_read_only_from_quit_on(start):  # RFC 1939 §6, §8
    """Or it is removed by rule, and the client that vanished had not read a single octet of it."""
    async with start() as rig:
        await rig.deliver(*[sized(100), sized(200_000)] * 2)
        deaf = await rig.log_in()
        deaf.send(b"RETR 1\r\nRETR 2\r\n")
        await asyncio.sleep(0.2)
        deaf.reset()
        assert await read(rig) == []
        for leave in (Client.half_close, Client.reset):
            client = await rig.log_in()
            assert len(await client.body(b"RETR 1")) == 100
            leave(client)
            assert await read(rig) == []
        client = await rig.log_in()
        for number in (1, 2, 3):
            await client.body(b"RETR %d" % number)
        assert await client.ask(b"DELE 2") == b"+OK deleted\r\n"
        assert await client.ask(b"QUIT") == b"+OK bye, 1 deleted\r\n"
        assert await read(rig) == [1, 3]


async def test_a_quit_that_fails_has_read_nothing(start, monkeypatch):
    async with start() as rig:
        await rig.deliver(*[sized(100)] * 2)

        async def fail(account_id, uids, **lock):
            raise StoreUnavailable("the disk is on fire")

        monkeypatch.setattr(rig.store, "expunge", fail)
        client = await rig.log_in()
        await client.body(b"RETR 1")
        await client.ask(b"DELE 2")
        assert (await client.ask(b"QUIT")).startswith(b"-ERR [SYS/TEMP]")
        assert await read(rig) == []
