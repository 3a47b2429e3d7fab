"""A log that is written to is its writer's business; one that is not is copied back, and that once."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from mailstack.store import housekeeping, space
from mailstack.store.engine import Database
from mailstack.store.housekeeping import Rules, Sweep
from mailstack.store.limits import Limits
from mailstack.store.parts import content_id
from mailstack.store.sqlite import log_path
from mailstack.store.tables import account, content
from tests.support import maildrops
from tests.support.stores import opened

JO = "jo@example.org"
OCTETS = 256 * 1024
NOTHING_GOES = Rules(default=Limits(), undo_seconds=0, undo_deleted_seconds=0)


@pytest.fixture
def filled(sqlite_url: str) -> Database:
    """A database whose log was long, and has begun anew."""
    database = Database(sqlite_url)
    maildrops.add_accounts(database, JO)
    maildrops.deposit(database, b"x" * 2 * OCTETS + b"\r\n", JO)
    database.checkpoint("RESTART")
    maildrops.deposit(database, b"Subject: one\r\n\r\n", JO)
    return database


def test_a_file_that_is_long_has_no_long_log_in_it(filled: Database) -> None:
    assert Path(log_path(str(filled.path))).stat().st_size > OCTETS
    assert not space.checkpoint(filled, from_octets=OCTETS)
    assert space.checkpoint(filled)
    filled.dispose()


def test_a_quiet_log_is_copied_once_and_what_was_in_it_is_in_the_database(filled: Database) -> None:
    quiet = space.QuietLog(filled)
    assert [quiet.look() for _ in range(4)] == [False, True, False, False]
    # What SQLite finds without the log
    copy = Path(str(filled.path)).with_name("copy.db")
    copy.write_bytes(Path(str(filled.path)).read_bytes())
    alone = Database(f"sqlite:///{copy}")
    with alone.reading() as connection:
        assert connection.execute(account.select()).one().messages == 2
    alone.dispose()
    maildrops.deposit(filled, b"Subject: two\r\n\r\n", JO)
    assert [quiet.look() for _ in range(3)] == [False, True, False]
    filled.dispose()


def test_a_log_that_somebody_reads_from_is_copied_once_nobody_does(filled: Database) -> None:
    quiet = space.QuietLog(filled)
    with filled.reading() as connection:
        connection.execute(account.select()).all()
        maildrops.deposit(filled, b"Subject: two\r\n\r\n", JO)
        assert [quiet.look() for _ in range(3)] == [False, False, False]
    assert [quiet.look() for _ in range(2)] == [True, False]
    filled.dispose()


def test_a_log_that_is_written_to_is_left_to_whoever_writes(filled: Database) -> None:
    quiet = space.QuietLog(filled)
    for number in range(5):
        assert not quiet.look()
        maildrops.deposit(filled, b"Subject: %d\r\n\r\n" % number, JO)
    filled.dispose()


async def test_no_log_grows_long_while_space_is_given_back(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "LARGE_LOG_OCTETS", 4 * 1024 * 1024)
    monkeypatch.setattr(space, "reclaim", partial(space.reclaim, spare_octets=0))
    database = Database(sqlite_url)
    maildrops.add_accounts(database, JO)
    for _ in range(2):  # what is behind what goes has to move
        maildrops.deposit(database, b"x" * 12_000_000 + b"\r\n", JO)
    with database.writing() as connection:
        connection.execute(content.delete().where(content.c.id < content_id(2)))
    database.checkpoint("RESTART")
    log = log_path(str(database.path))
    database.dispose()  # the last one removes it
    async with opened(Database(sqlite_url), tmp_path) as store:
        report = await housekeeping.run(store, NOTHING_GOES, sweep=Sweep.NOT_NOW)
        assert report.freed_octets > 0
        assert os.stat(log).st_size < 8 * 1024 * 1024


def test_a_server_of_databases_keeps_its_own_log(postgresql_url: str) -> None:
    database = Database(postgresql_url)
    quiet = space.QuietLog(database)
    assert [quiet.look() for _ in range(3)] == [False] * 3
    assert not space.checkpoint(database)
    database.dispose()
