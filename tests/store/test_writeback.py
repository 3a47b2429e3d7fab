"""What has to be on the disk soon goes there early; SQLite's locks, and its errors, stay its own."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from mailstack.errors import StoreUnavailable
from mailstack.mail.address import parse_mailbox
from mailstack.mail.spool import PART_OCTETS, Spool
from mailstack.store import accounts, messages, writeback
from mailstack.store.engine import Database
from mailstack.store.messages import Deposit, Recipient
from mailstack.store.sqlite import driver_of
from mailstack.store.tables import message
from tests.support import maildrops
from tests.support.fetched import whole
from tests.support.small_files import files_of_at_most

LARGE = 20 * PART_OCTETS


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are synced from now on, by their names."""
    found: list[str] = []
    sync = os.fdatasync

    def noted(number: int) -> None:
        found.append(os.readlink(f"/proc/self/fd/{number}"))
        sync(number)

    monkeypatch.setattr(os, "fdatasync", noted)
    return found


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A file with something in it, and the descriptor by which it is open."""
    path = tmp_path / "opened"
    number = os.open(path, os.O_RDWR | os.O_CREAT)
    os.write(number, b"x" * 10_000)
    yield str(path), number
    os.close(number)


# -- large content -----------------------------------------------------------------------------------


def deposited(connection: Connection, content: bytes, directory: Path) -> None:
    account = accounts.find_account(connection, parse_mailbox("jo@example.org"))
    with Spool(directory) as spool:
        spool.write(content)
        job = Deposit("test", "", spool, False, (Recipient(account.id, b""),), 1)
        messages.deposit(connection, [job])


def log_octets(database: Database) -> int:
    return os.stat(f"{database.path}-wal").st_size


def test_a_large_message_is_in_the_log_before_its_commit(sqlite_url: str, tmp_path: Path) -> None:
    database = Database(sqlite_url)
    maildrops.add_accounts(database, "jo@example.org")
    before = log_octets(database)
    content = os.urandom(LARGE)
    with database.writing() as connection:
        pages = driver_of(connection).execute("PRAGMA cache_size").fetchall()
        deposited(connection, content, tmp_path)
        assert log_octets(database) - before > LARGE - 1024 * 1024
        assert driver_of(connection).execute("PRAGMA cache_size").fetchall() == pages
        assert whole(connection, 1, 1) == content
    with database.reading() as connection:
        assert whole(connection, 1, 1) == content
    database.dispose()


def test_a_small_message_is_written_to_the_log_by_its_commit_alone(sqlite_url: str, tmp_path: Path) -> None:
    database = Database(sqlite_url)
    maildrops.add_accounts(database, "jo@example.org")
    before = log_octets(database)
    with database.writing() as connection:
        deposited(connection, os.urandom(3 * PART_OCTETS), tmp_path)
        assert log_octets(database) == before
    assert log_octets(database) > before + 3 * PART_OCTETS
    database.dispose()


def test_a_large_message_that_is_not_committed_was_never_there(sqlite_url: str, tmp_path: Path) -> None:
    database = Database(sqlite_url)
    maildrops.add_accounts(database, "jo@example.org")
    with database.writing() as connection:
        deposited(connection, os.urandom(LARGE), tmp_path)
        connection.rollback()
    content = os.urandom(LARGE + 1)
    with database.writing() as connection:
        assert connection.execute(select(message)).all() == []
        deposited(connection, content, tmp_path)
    with database.reading() as connection:
        assert whole(connection, 1, 1) == content
    database.dispose()


def test_a_large_message_that_the_disk_does_not_take_harms_none_behind_it(
    sqlite_url: str, tmp_path: Path
) -> None:
    database = Database(sqlite_url)
    maildrops.add_accounts(database, "jo@example.org")
    with database.writing() as connection:
        pages = driver_of(connection).execute("PRAGMA cache_size").fetchall()
    content = os.urandom(LARGE)
    with files_of_at_most(log_octets(database) + LARGE // 2):
        with pytest.raises(StoreUnavailable), database.writing() as connection:
            deposited(connection, content, tmp_path)
        with database.writing() as connection:
            assert driver_of(connection).execute("PRAGMA cache_size").fetchall() == pages
            deposited(connection, b"small", tmp_path)
    with database.writing() as connection:
        deposited(connection, content, tmp_path)
    with database.reading() as connection:
        assert [whole(connection, 1, uid) for uid in (1, 2)] == [b"small", content]
    database.dispose()


# -- descriptors and locks ---------------------------------------------------------------------------


def test_sqlite_keeps_its_descriptors_and_its_locks(sqlite_url: str, synced: list[str]) -> None:
    database = Database(sqlite_url)
    with database.reading():
        path = str(database.path)
        before = os.listdir("/proc/self/fd"), locks_of(path)
        assert before[1]
        writeback.begin(f"{path}-wal")
        writeback.finish(path)
        assert (os.listdir("/proc/self/fd"), locks_of(path)) == before
        assert synced == [path]
    database.dispose()


def locks_of(path: str) -> list[str]:
    """What the kernel has locked of a file, without the numbers of the lines."""
    inode = f":{os.stat(path).st_ino} "
    return sorted(
        line.partition(":")[2] for line in Path("/proc/locks").read_text().splitlines() if inode in line
    )


def test_a_copied_log_is_synced_although_somebody_writes(sqlite_url: str, synced: list[str]) -> None:
    database = Database(sqlite_url)
    maildrops.add_accounts(database, "jo@example.org")
    assert database.checkpoint("PASSIVE")
    assert synced == [database.path]
    database.dispose()


def test_a_disk_that_does_not_take_it_is_told(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(number: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    database = Database(sqlite_url)
    maildrops.add_accounts(database, "jo@example.org")
    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(StoreUnavailable, match=r"mail\.db cannot be synced: Input/output error"):
        database.checkpoint("PASSIVE")
    database.dispose()


def test_a_file_that_is_not_open_is_left_alone(tmp_path: Path, synced: list[str]) -> None:
    there = tmp_path / "there"
    there.write_bytes(b"x")
    for path in (str(there), str(tmp_path / "nowhere")):
        writeback.begin(path)
        writeback.finish(path)
    assert synced == []


def test_whoever_has_no_descriptor_left_has_his_message_written(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(place: str) -> list[str]:
        raise OSError(errno.EMFILE, "Too many open files")

    database = Database(sqlite_url)
    maildrops.add_accounts(database, "jo@example.org")
    monkeypatch.setattr(os, "listdir", fail)
    content = os.urandom(LARGE)
    with database.writing() as connection:
        deposited(connection, content, tmp_path)
    assert database.checkpoint("PASSIVE")
    with database.reading() as connection:
        assert whole(connection, 1, 1) == content
    database.dispose()


def test_nobody_looks_for_a_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    monkeypatch.setattr(os, "listdir", looked.append)
    writeback.begin(str(tmp_path / "nowhere"))
    assert looked == []


def test_a_number_that_has_become_another_files_is_not_taken_for_the_first(
    opened: tuple[str, int], tmp_path: Path, synced: list[str]
) -> None:
    path, number = opened
    writeback.finish(path)
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    os.dup2(other, number)
    writeback.finish(path)
    again = os.open(path, os.O_RDONLY)
    writeback.finish(path)
    assert synced == [path, path]
    os.close(again)
    os.close(other)


def test_a_file_whose_name_is_another_files_now_is_not_taken_for_it(
    opened: tuple[str, int], synced: list[str]
) -> None:
    path, _ = opened
    writeback.finish(path)
    os.rename(path, f"{path}.old")
    Path(path).write_bytes(b"a restored one")
    writeback.finish(path)
    assert synced == [path]
