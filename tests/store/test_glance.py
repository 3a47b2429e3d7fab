"""A glance: one row, at once, as it is now; or nothing, where a thread has to be asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import update

from mailstack.errors import NoSuchMailbox
from mailstack.mail.address import Mailbox
from mailstack.store import accounts, domains, messages
from mailstack.store.engine import Database
from mailstack.store.glance import Glance
from mailstack.store.tables import account
from tests.support.faults import Faults, Kind


@pytest.fixture
def sqlite(sqlite_url: str):
    database = Database(sqlite_url)
    yield database
    database.dispose()


def made(database: Database) -> int:
    with database.writing() as connection:
        domains.add_domain(connection, "example.org")
        return accounts.add_account(connection, Mailbox("ann", "example.org"), password_hash="x").id


@asynccontextmanager
async def looking(database: Database) -> AsyncIterator[Glance]:
    glance = Glance(database)
    await glance.connected()
    try:
        yield glance
    finally:
        await glance.close()


async def test_it_sees_each_commit_of_others_and_holds_no_snapshot(sqlite: Database) -> None:
    account_id = made(sqlite)
    async with looking(sqlite) as glance:
        for number in range(5):
            with sqlite.writing() as connection:
                connection.execute(update(account).values(messages=number))
            seen = glance.at(messages.snapshot, account_id)
            assert seen is not None
            assert seen.messages == number
        # Nothing of it keeps the write-ahead log from being used from its beginning again.
        raw = sqlite.engine.raw_connection()
        assert raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
        raw.close()


async def test_it_does_not_wait_for_a_writer(sqlite: Database) -> None:
    account_id = made(sqlite)
    async with looking(sqlite) as glance:
        with sqlite.writing() as connection:
            connection.execute(update(account).values(messages=7))
            seen = glance.at(messages.snapshot, account_id)
            assert seen is not None
            assert seen.messages == 0


async def test_what_the_function_raises_is_its_own(sqlite: Database) -> None:
    async with looking(sqlite) as glance:
        with pytest.raises(NoSuchMailbox):
            glance.at(messages.snapshot, 1)


async def test_a_server_is_never_asked_on_the_loop(postgresql_url: str) -> None:
    database = Database(postgresql_url)
    account_id = made(database)
    async with looking(database) as glance:
        assert glance.at(messages.snapshot, account_id) is None
    database.dispose()


async def test_what_fails_is_left_to_a_thread_until_there_is_a_new_connection(sqlite: Database) -> None:
    account_id = made(sqlite)
    faults = Faults(sqlite)
    async with looking(sqlite) as glance:
        with faults.at(0, Kind.CUT):
            assert glance.at(messages.snapshot, account_id) is None
        assert faults.struck is not None
        assert glance.at(messages.snapshot, account_id) is None
        await glance.connected()
        assert glance.at(messages.snapshot, account_id) is not None


async def test_a_closed_one_tells_nothing(sqlite: Database) -> None:
    account_id = made(sqlite)
    async with looking(sqlite) as glance:
        assert glance.at(messages.snapshot, account_id) is not None
    assert glance.at(messages.snapshot, account_id) is None
    await glance.connected()
    assert glance.at(messages.snapshot, account_id) is None
