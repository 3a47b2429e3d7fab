"""A database that would break our promises silently is refused before anybody relies on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from mailstack.errors import BadSetting, MaildropInUse, StoreUnavailable
from mailstack.store import fitness
from mailstack.store.advisory_locks import AdvisoryLocks
from mailstack.store.engine import Database
from tests.support import postgresql
from tests.support.appliance import Appliance
from tests.support.pgbouncer import pgbouncer


@pytest.fixture
def folder() -> Iterator[Path]:
    with postgresql.temporary_directory() as made:
        yield made


def set_synchronous_commit(url: str, what: str) -> None:
    name = make_url(url).database
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = {what}')


def locks(database: Database) -> AdvisoryLocks:
    return AdvisoryLocks(database, lambda: None)


async def test_what_pools_by_session_keeps_the_locks_apart(postgresql_url: str, folder: Path) -> None:
    with pgbouncer(folder, postgresql_url, "session") as url:
        here, there = Database(url), Database(url)
        fitness.check(here)
        first, second = locks(here), locks(there)
        await first.hold(7, holder="192.0.2.1")
        with pytest.raises(MaildropInUse):
            await second.hold(7, holder="192.0.2.2")
        for each in (first, second):
            each.close()
        for each in (here, there):
            each.dispose()


async def test_what_pools_by_transaction_lets_two_have_one_maildrop(
    postgresql_url: str, folder: Path
) -> None:
    with pgbouncer(folder, postgresql_url, "transaction") as url:
        here, there = Database(url), Database(url)
        first, second = locks(here), locks(there)
        await first.hold(7, holder="192.0.2.1")
        await second.hold(7, holder="192.0.2.2")  # or else there would be no reason to refuse it
        for each in (first, second):
            each.close()
        with pytest.raises(BadSetting, match="pool_mode = session"):
            fitness.check(here)
        for each in (here, there):
            each.dispose()


def test_who_finds_no_connection_of_the_pooler_free_is_told_and_may_ask_again(
    postgresql_url: str, folder: Path
) -> None:
    with pgbouncer(folder, postgresql_url, "session", default_pool_size=1, query_wait_timeout=1) as url:
        here, there = Database(url), Database(url)
        with here.reading() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
            with pytest.raises(StoreUnavailable, match="query_wait_timeout"), there.reading():
                raise AssertionError("there is one connection, and another has it")
        here.dispose()
        with there.reading() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
        there.dispose()


def test_what_needs_nothing_is_fit(database: Database) -> None:
    fitness.check(database)


@pytest.mark.parametrize("what", ["on", "local", "remote_write", "remote_apply"])
def test_a_database_that_waits_for_some_disk_is_fit(postgresql_url: str, what: str) -> None:
    set_synchronous_commit(postgresql_url, what)
    database = Database(postgresql_url)
    fitness.check(database)
    database.dispose()


def test_a_database_that_waits_for_no_disk_is_refused(postgresql_url: str) -> None:
    set_synchronous_commit(postgresql_url, "off")
    database = Database(postgresql_url)
    with pytest.raises(BadSetting, match="synchronous_commit = on"):
        fitness.check(database)
    database.dispose()


def test_a_server_that_waits_for_no_disk_is_refused(folder: Path) -> None:
    with postgresql.server(folder, fsync="off") as server:
        database = Database(server.url)
        with pytest.raises(BadSetting, match="fsync = on"):
            fitness.check(database)
        database.dispose()


def test_a_server_behind_one_that_pools_by_transaction_does_not_start(
    appliance_on_postgresql: Appliance, folder: Path
) -> None:
    appliance = appliance_on_postgresql
    with pgbouncer(folder, appliance.url, "transaction") as url:
        process = appliance.run(environ={"MAILSTACK_DATABASE_URL": url})
        assert process.wait(30) == os.EX_CONFIG
    assert "pools by transaction" in appliance.said()


def test_a_server_behind_one_that_pools_by_session_serves(
    appliance_on_postgresql: Appliance, folder: Path
) -> None:
    appliance = appliance_on_postgresql
    with pgbouncer(folder, appliance.url, "session") as url:
        appliance.run(environ={"MAILSTACK_DATABASE_URL": url}).wait_ready()
        appliance.send(b"Subject: through it\r\n\r\n", "anna")
        session = appliance.pop3("anna")
        assert session.stat()[0] == 1
        session.dele(1)
        session.quit()
        appliance.stop()
