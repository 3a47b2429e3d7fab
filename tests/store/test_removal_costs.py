"""What removing mail costs the disk: not as much as storing it did."""

from __future__ import annotations

from pathlib import Path

from mailstack.store.engine import PAGE_OCTETS, Database
from mailstack.store.removal import Expunge, expunge
from tests.store.operations import deposited
from tests.support import maildrops

LARGE = b"Subject: large\r\n\r\n" + b"x" * 4 * 1024 * 1024 + b"\r\n"


def test_deleting_a_large_message_writes_little(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    maildrops.add_accounts(database, "anna@example.org")
    with database.writing() as connection:
        deposited(connection, (LARGE, (1,)))
    assert database.path
    log = Path(f"{database.path}-wal")
    assert log.stat().st_size > len(LARGE)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").all()
    with database.writing() as connection:
        assert expunge(connection, [Expunge(1, [1])]) == [1]
        maildrops.sweep(connection)
    assert log.stat().st_size < 30 * PAGE_OCTETS  # with zeros for every page it would be as large again
    database.dispose()
