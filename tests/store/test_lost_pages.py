"""`database check` on a file whose pages are lost: it reads what can be read, and names the rest."""

from __future__ import annotations

import re
import shutil
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from mailstack.errors import StoreDamaged, StoreUnavailable
from mailstack.store.engine import Database
from mailstack.store.sqlite import PAGE_OCTETS
from tests.store.operations import deposited
from tests.support import maildrops
from tests.support.contents import findings

ACCOUNTS, MESSAGES = 100, 3000


@pytest.fixture(scope="module")
def filled(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which every table and index that matters here has leaves of its own."""
    path = tmp_path_factory.mktemp("filled") / "mail.db"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    maildrops.add_accounts(database, *(f"a{number}@example.org" for number in range(ACCOUNTS)))
    with database.writing() as connection:
        batch = [(b"Subject: %d\r\n\r\n" % n, (1 + n % ACCOUNTS,)) for n in range(MESSAGES)]
        deposited(connection, *batch, (b"Subject: to all\r\n\r\n", tuple(range(1, ACCOUNTS + 1))))
    assert findings(database) == []
    database.dispose()
    return path


def leaf_in_the_middle(path: Path, name: str) -> int:
    """The number of a page that is a leaf of that table or index, by SQLite's file format."""
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    octets = path.read_bytes()
    while octets[(page - 1) * PAGE_OCTETS] in (2, 5):  # an interior page
        start = (page - 1) * PAGE_OCTETS
        (cells,) = struct.unpack_from(">H", octets, start + 3)
        (cell,) = struct.unpack_from(">H", octets, start + 12 + 2 * (cells // 2))
        (page,) = struct.unpack_from(">I", octets, start + cell)
    return page


def lost(filled: Path, folder: Path, name: str) -> Database:
    """A copy of the store without one page of that table or index."""
    path = Path(shutil.copy(filled, folder / "mail.db"))
    page = leaf_in_the_middle(path, name)
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE_OCTETS)
        file.write(bytes(PAGE_OCTETS))
    return Database(f"sqlite:///{path}")


def numbers(found: list[str], ending: str) -> list[int]:
    """Of the messages that are named by such a finding."""
    return [int(each.split()[1]) for each in found if each.startswith("message ") and each.endswith(ending)]


def test_content(filled: Path, tmp_path: Path) -> None:
    database = lost(filled, tmp_path, "content")
    found = findings(database)
    damaged = numbers(found, "is damaged: its content cannot be read: the database is damaged there")
    assert 20 < len(damaged) < 1000
    assert damaged == list(range(damaged[0], damaged[-1] + 1))
    with database.reading() as connection:  # and their readers are told before a reply begins
        noted = connection.exec_driver_sql("SELECT id FROM message WHERE damaged_at IS NOT NULL ORDER BY id")
        assert noted.scalars().all() == damaged
    database.dispose()


def test_a_table_of_messages(filled: Path, tmp_path: Path) -> None:
    database = lost(filled, tmp_path, "message")
    found = findings(database)
    assert "some of the table message cannot be read: the database is damaged there" in found
    damaged = numbers(found, "its content cannot be read: the database is damaged there")
    assert 20 < len(damaged) < 1000
    assert findings(database, repair=True) == found
    database.dispose()


def test_a_table_of_entries(filled: Path, tmp_path: Path) -> None:
    database = lost(filled, tmp_path, "entry")
    found = findings(database)
    assert "some of the table entry cannot be read: the database is damaged there" in found
    maildrops_hit = [each for each in found if each.startswith("some of what belongs to a")]
    assert 0 < len(maildrops_hit) < ACCOUNTS
    assert all("@example.org" in each for each in maildrops_hit)
    database.dispose()


def test_the_accounts(filled: Path, tmp_path: Path) -> None:
    database = lost(filled, tmp_path, "account")
    assert "some of the table account cannot be read: the database is damaged there" in findings(database)
    database.dispose()


def test_an_index(filled: Path, tmp_path: Path) -> None:
    database = lost(filled, tmp_path, "ix_entry_message_id")
    index, rest = findings(database)
    assert index == "some of the index ix_entry_message_id cannot be read: the database is damaged there"
    run = r"some of what belongs to messages \d+-\d+ cannot be read: the database is damaged there"
    assert re.fullmatch(run, rest)
    database.dispose()


@pytest.mark.parametrize(
    ("code", "fact"),
    [
        (sqlite3.SQLITE_IOERR_READ, StoreDamaged),
        (sqlite3.SQLITE_IOERR_WRITE, StoreUnavailable),
        (sqlite3.SQLITE_CORRUPT_INDEX, StoreDamaged),
    ],
)
def test_a_sector_that_cannot_be_read_is_damage(
    sqlite_url: str, code: int, fact: type[StoreUnavailable]
) -> None:
    database = Database(sqlite_url)
    raised = sqlite3.OperationalError("disk I/O error")
    raised.sqlite_errorcode = code  # type: ignore[attr-defined]
    with pytest.raises(StoreUnavailable) as caught, database.translated():
        raise raised
    assert type(caught.value) is fact
    database.dispose()


@pytest.mark.parametrize("error", [psycopg.errors.DataCorrupted, psycopg.errors.IndexCorrupted])
def test_what_postgresql_calls_corrupted_is_damage(postgresql_url: str, error: type[psycopg.Error]) -> None:
    database = Database(postgresql_url)
    with pytest.raises(StoreDamaged, match="restore it from a backup"), database.translated():
        raise error("invalid page in block 7 of relation base/1/2")
    database.dispose()
