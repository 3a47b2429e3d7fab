"""The write-ahead log is copied back when it is long, and not because its file was long once."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select

from mailstack.errors import StoreUnavailable
from mailstack.store import checkpoint, sqlite
from mailstack.store.batches import Batches
from mailstack.store.bulk import snapshot
from mailstack.store.checkpoint import LARGE_LOG_OCTETS, LOG_OCTETS, is_longer, long_octets
from mailstack.store.engine import Database
from mailstack.store.tables import state
from mailstack.store.writer import Writer
from tests.support.writing import writing

OCTETS = 256 * 1024


class Counting(Database):
    """A database that counts how often its log was copied, was to begin anew, and did."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.refused = self.begun_anew = 0
        self.copied: list[int] = []  # how many pages were in the log, each time
        self.strange: str | None = None  # the kind that fails for once, and for no reason that has a name

    def checkpoint(self, kind: str) -> bool:
        """Copy back, and count."""
        if kind == self.strange:
            self.strange = None
            raise LookupError(f"{kind} has gone wrong")
        done = super().checkpoint(kind)
        if kind == "RESTART":
            self.begun_anew += done
            self.refused += not done
        return done

    def _checkpoint(self, kind: str) -> sqlite.Checkpoint:
        done = super()._checkpoint(kind)
        if kind == "PASSIVE":
            self.copied.append(done.logged)
        return done


def write(database: Database, *names: str) -> None:
    for name in names:
        with database.writing() as connection:
            connection.execute(insert(state).values(name=name, value=1))


def test_the_length_of_a_log_is_that_of_what_is_in_it(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    path = f"{database.path}-wal"
    write(database, "one")
    assert is_longer(path, 0)
    assert not is_longer(path, OCTETS)
    write(database, *(str(number) for number in range(100)))
    assert is_longer(path, OCTETS)
    database.checkpoint("RESTART")
    write(database, "two")
    assert Path(path).stat().st_size > OCTETS
    assert is_longer(path, 0)
    assert not is_longer(path, OCTETS)
    database.dispose()


def test_a_log_that_is_not_there_is_not_long(tmp_path: Path) -> None:
    assert not is_longer(str(tmp_path / "mail.db-wal"), 0)


@pytest.mark.parametrize(
    ("database_octets", "free_octets", "expected"),
    [
        (0, 1 << 40, LOG_OCTETS),
        (1 << 30, 1 << 40, LOG_OCTETS),
        (1 << 31, 1 << 40, 1 << 26),
        (1 << 40, 1 << 40, LARGE_LOG_OCTETS),
        (1 << 40, 1 << 29, 1 << 26),  # a disk that is nearly full has no room for a long log
        (1 << 40, 0, LOG_OCTETS),
    ],
)
def test_a_large_database_on_a_large_disk_has_a_longer_log(
    database_octets: int, free_octets: int, expected: int
) -> None:
    assert long_octets(database_octets, free_octets) == expected


def work(connection: Connection, jobs: Sequence[str]) -> list[None]:
    for job in jobs:
        connection.execute(insert(state).values(name=job, value=1))
    return [None] * len(jobs)


def counting(url: str, monkeypatch: pytest.MonkeyPatch, *, pause_seconds: float) -> tuple[Counting, Writer]:
    """A writer, and its database, of which a log is long at OCTETS already."""
    monkeypatch.setattr(checkpoint, "LOG_OCTETS", OCTETS)
    monkeypatch.setattr(checkpoint, "_PAUSE_SECONDS", pause_seconds)
    database = Counting(url)
    return database, writing(database)


async def write_while(writer: Writer, lacking: Callable[[], bool]) -> int:
    """Write one name after the other while something is lacking; how many."""
    deadline = time.monotonic() + 20
    written = 0
    while lacking():
        assert time.monotonic() < deadline
        await asyncio.wait_for(writer.write(work, f"{next(_numbers)}"), 20)
        written += 1
    return written


_numbers = itertools.count(1)


async def test_nobody_waits_for_whoever_has_one_moment_of_the_store_before_him(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, writer = counting(sqlite_url, monkeypatch, pause_seconds=0.1)
    other = Database(sqlite_url)
    began = time.monotonic()
    with snapshot(other) as connection:
        connection.execute(select(state)).all()
        # The log is long, cannot begin anew, and is looked at again.
        await write_while(writer, lambda: database.refused < 2)
    assert time.monotonic() - began < 5  # SQLite itself would wait 10 s, each time
    await write_while(writer, lambda: not database.begun_anew)
    await writer.close()
    other.dispose()
    database.dispose()


async def test_a_log_that_was_long_once_is_not_copied_back_for_ever(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, writer = counting(sqlite_url, monkeypatch, pause_seconds=0.01)
    await write_while(writer, lambda: database.begun_anew < 3)
    await writer.close()
    # Only the first copy finds a long log: once all is copied, whoever writes next may begin it anew.
    first = database.copied[:: checkpoint._PASSES]
    assert min(first) >= OCTETS // sqlite.PAGE_OCTETS
    database.dispose()


async def test_a_log_does_not_begin_anew_while_the_disk_refuses_what_was_copied(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refused = 0

    def refuse(number: int) -> None:
        nonlocal refused
        refused += 1
        raise OSError(errno.EIO, "Input/output error")

    database, writer = counting(sqlite_url, monkeypatch, pause_seconds=0.1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", refuse)
        # Mail is written all the same, and the log is looked at again.
        written = await write_while(writer, lambda: refused < 2)
        assert not database.begun_anew
    written += await write_while(writer, lambda: not database.begun_anew)
    await writer.close()
    assert "cannot be synced" in caplog.text
    with database.reading() as connection:
        assert len(connection.execute(select(state)).all()) == written
    database.dispose()


async def test_a_checkpoint_that_fails_for_an_unknown_reason_is_told_and_done_again(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    database, writer = counting(sqlite_url, monkeypatch, pause_seconds=0.01)

    async def write_until_it_begins_anew() -> None:
        before = database.begun_anew
        await write_while(writer, lambda: database.begun_anew == before)

    await write_until_it_begins_anew()
    for kind in ("PASSIVE", "RESTART"):
        database.strange = kind
        await write_until_it_begins_anew()
        assert database.strange is None
        assert f"{kind} has gone wrong" in caplog.text
    await writer.close()
    database.dispose()


async def test_mail_is_written_while_no_thread_can_be_had_to_copy_the_log(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refused = 0
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        nonlocal refused
        if not thread.name.startswith("checkpoint"):
            start(thread)
            return
        refused += 1
        raise RuntimeError("can't start new thread")

    database, writer = counting(sqlite_url, monkeypatch, pause_seconds=0.01)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        await write_while(writer, lambda: refused < 2)
    assert "can't start new thread" in caplog.text
    assert not database.copied
    await write_while(writer, lambda: not database.begun_anew)
    copies = checkpoint._PASSES * (database.begun_anew + database.refused)
    assert len(database.copied) == copies, "no copy is left over that nobody had a thread for"
    await writer.close()
    database.dispose()


async def test_nobody_waits_for_a_thread_that_has_died(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(sqlite_url)
    writer = writing(database)
    told: list[str] = []
    writer.on_lost.append(lambda: told.append("lost"))
    monkeypatch.setattr(Batches, "tidy", lambda _batches: 1 / 0)
    await writer.write(work, "one")
    with pytest.raises(StoreUnavailable, match="has died"):
        await asyncio.wait_for(writer.write(work, "two"), timeout=20)
    await writer.close()
    assert told == ["lost"]
    assert "ZeroDivisionError" in caplog.text
    database.dispose()
