"""Reading on threads: what one does, when the other helps, and which moment each question sees."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import Connection, func, select, text

from mailstack.errors import NoSuchMailbox, StoreUnavailable
from mailstack.store import readers
from mailstack.store.engine import Database
from mailstack.store.prepared import Prepared
from mailstack.store.readers import Readers
from mailstack.store.tables import account
from tests.support import maildrops

SECONDS = 20


@asynccontextmanager
async def reading(database: Database) -> AsyncIterator[Readers]:
    them = Readers(database)
    try:
        yield them
    finally:
        await them.close()


def reader(_connection: Connection) -> str:
    return threading.current_thread().name


async def test_what_is_asked_at_once_is_read_by_one_thread(database, monkeypatch):
    monkeypatch.setattr(readers, "_STUCK_SECONDS", SECONDS)
    async with reading(database) as them:
        for _ in range(20):
            assert len(set(await asyncio.gather(*(them.read(reader) for _ in range(10))))) == 1


async def test_what_waits_behind_something_slow_is_read_by_the_other_thread(database):
    async with reading(database) as them:
        slow, may_end = threading.Event(), threading.Event()

        def wait(_connection: Connection) -> str:
            slow.set()
            assert may_end.wait(SECONDS)
            return threading.current_thread().name

        waiting = asyncio.ensure_future(them.read(wait))
        behind = [asyncio.ensure_future(them.read(reader)) for _ in range(5)]  # in the same turn
        async with asyncio.timeout(SECONDS):
            names = set(await asyncio.gather(*behind))
            assert slow.is_set()
            names.add(await them.read(reader))  # and later
        assert not waiting.done()
        may_end.set()
        assert len(names | {await waiting}) == 2


async def test_what_fails_is_told_to_who_asked_for_it_alone(database):
    async with reading(database) as them:

        def fail(_connection: Connection) -> None:
            raise NoSuchMailbox("there is none")

        outcomes = await asyncio.gather(
            *(them.read(fail if number % 3 == 1 else reader) for number in range(40)),
            return_exceptions=True,
        )
        for number, outcome in enumerate(outcomes):
            assert isinstance(outcome, NoSuchMailbox if number % 3 == 1 else str)


async def test_a_question_sees_what_was_committed_before_it_was_asked(database):
    async with reading(database) as them:
        began, may_end = threading.Event(), threading.Event()

        def accounts(connection: Connection) -> int:
            return len(connection.execute(select(account.c.id)).all())

        def begin(connection: Connection) -> int:
            found = accounts(connection)
            began.set()
            assert may_end.wait(SECONDS)
            return found

        before = asyncio.ensure_future(them.read(begin))
        assert await asyncio.to_thread(began.wait, SECONDS)
        other_is_busy, other_may_end = threading.Event(), threading.Event()

        def occupy(_connection: Connection) -> None:
            other_is_busy.set()
            assert other_may_end.wait(SECONDS)

        busy = asyncio.ensure_future(them.read(occupy))
        assert await asyncio.to_thread(other_is_busy.wait, SECONDS)
        await asyncio.to_thread(maildrops.add_accounts, database, "anna@example.org")
        after = asyncio.ensure_future(them.read(accounts))  # no thread is free for it
        await asyncio.sleep(0)
        may_end.set()
        assert (await before, await after) == (0, 1)
        other_may_end.set()
        await busy


async def test_what_waits_is_read_before_the_end(database):
    async with reading(database) as them:
        asked = [asyncio.ensure_future(them.read(reader)) for _ in range(100)]
        await asyncio.sleep(0)
        await them.close()
        assert all(isinstance(each, str) for each in await asyncio.gather(*asked))


@pytest.mark.parametrize("prepared", [False, True], ids=["SQLAlchemy's", "prepared"])
async def test_all_that_a_question_reads_from_sqlite_is_of_one_moment(sqlite_url, prepared):
    database = Database(sqlite_url)
    maildrops.add_accounts(database, "anna@example.org")
    counted = select(func.count(account.c.id))
    statement = Prepared(counted)

    def accounts(connection: Connection) -> int:
        if prepared:
            (found,) = statement.row(connection) or (0,)
            return int(found)
        return connection.execute(counted).scalar_one()

    async with reading(database) as them:
        for seen in (1, 2):
            began, may_end = threading.Event(), threading.Event()

            def twice(connection: Connection, began=began, may_end=may_end) -> tuple[int, int]:
                before = accounts(connection)
                began.set()
                assert may_end.wait(SECONDS)
                return before, accounts(connection)

            asked = asyncio.ensure_future(them.read(twice))
            assert await asyncio.to_thread(began.wait, SECONDS)
            await asyncio.to_thread(maildrops.add_accounts, database, f"ben{seen}@example.org")
            may_end.set()
            assert await asked == (seen, seen)
    database.dispose()


_CUT = text("SELECT pg_terminate_backend(pg_backend_pid())")
_CUT_BY_DRIVER = Prepared(select(func.pg_terminate_backend(func.pg_backend_pid())))


@pytest.mark.parametrize("by_driver", [False, True])
async def test_a_connection_that_breaks_is_replaced_once(postgresql_url, by_driver):
    database = Database(postgresql_url)
    tries = []

    def read(connection: Connection, *, cuts: int) -> str:
        tries.append(1)
        if len(tries) <= cuts:
            _CUT_BY_DRIVER.row(connection) if by_driver else connection.execute(_CUT)
        return "read"

    async with reading(database) as them:
        beside = [them.read(reader) for _ in range(3)]
        found = await asyncio.gather(them.read(lambda connection: read(connection, cuts=1)), *beside)
        assert found[0] == "read"
        assert len(tries) == 2
        tries.clear()
        with pytest.raises(StoreUnavailable):
            await them.read(lambda connection: read(connection, cuts=9))
        assert len(tries) == 2
        assert await them.read(lambda connection: "as ever") == "as ever"
    database.dispose()
