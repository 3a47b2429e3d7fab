"""What removing mail costs, in octets that are written: SQLite by way of its log."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailstack.store.engine import Database
from mailstack.store.removal import Expunge, expunge
from mailstack.store.sqlite import PAGE_OCTETS
from tests.store.operations import deposited
from tests.support import maildrops

LARGE = b"Subject: large\r\n\r\n" + b"x" * 4 * 1024 * 1024 + b"\r\n"
SMALL = b"Subject: small\r\n\r\n" + b"x" * (PAGE_OCTETS // 4 - 48) + b"\r\n"
PEOPLE, EACH = 10, 60


@pytest.fixture
def database(sqlite_url: str) -> Database:
    """Of SQLite."""
    database = Database(sqlite_url)
    maildrops.add_accounts(database, *(f"user{number}@example.org" for number in range(PEOPLE)))
    return database


def log_octets(database: Database) -> int:
    """How much was written since the log was emptied."""
    return Path(f"{database.path}-wal").stat().st_size


def empty_log(database: Database) -> None:
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all()


def test_deleting_a_large_message_writes_little(database: Database) -> None:
    with database.writing() as connection:
        deposited(connection, (LARGE, (1,)))
    assert log_octets(database) > len(LARGE)
    empty_log(database)
    with database.writing() as connection:
        assert expunge(connection, [Expunge(1, [1])])[0].messages == 1
        maildrops.sweep(connection)
    assert log_octets(database) < 30 * PAGE_OCTETS  # with zeros for every page it would be as large again
    database.dispose()


def test_small_messages_that_lie_mixed_write_less_the_more_go_together(database: Database) -> None:
    everybody = range(1, PEOPLE + 1)
    with database.writing() as connection:
        for _ in range(2 * EACH):
            deposited(connection, *((SMALL, (each,)) for each in everybody))
    pages = []
    for at_once, uids in ((1, range(1, EACH + 1)), (PEOPLE, range(EACH + 1, 2 * EACH + 1))):
        with database.writing() as connection:
            expunge(connection, [Expunge(each, uids) for each in everybody])
            noted = connection.exec_driver_sql("SELECT message_id FROM leftover ORDER BY id").scalars().all()
            connection.exec_driver_sql("DELETE FROM leftover")
        empty_log(database)
        for first in range(0, len(noted), EACH * at_once):
            with database.writing() as connection:
                rows = [(number,) for number in noted[first : first + EACH * at_once]]
                connection.exec_driver_sql("INSERT INTO leftover (message_id) VALUES (?)", rows)
                maildrops.sweep(connection)
        pages.append(log_octets(database) / PAGE_OCTETS / len(noted))
    assert pages[0] > 0.9
    assert pages[1] < 0.15
    database.dispose()
