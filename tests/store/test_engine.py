"""The connection that writes: kept on SQLite, sound after a failure, and closed with the others."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, event, func, select

from mailstack.errors import StoreUnavailable
from mailstack.store import domains
from mailstack.store.engine import Database, Reading
from mailstack.store.glance import Glance
from mailstack.store.sqlite import log_path, reusable_octets
from mailstack.store.tables import domain
from tests.support.faults import Faults, Kind


def written_on(database: Database, name: str) -> Any:
    """The driver's connection on which this domain was added."""
    with database.writing() as connection:
        domains.add_domain(connection, name)
        return connection.connection.driver_connection


def test_a_link_is_another_name_of_one_database(sqlite_url: str, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "link.db"
    link.parent.mkdir()
    link.symlink_to(sqlite_url.removeprefix("sqlite:///"))
    direct, linked = Database(sqlite_url), Database(f"sqlite:///{link}")
    written_on(linked, "one.example")
    assert Path(log_path(str(linked.path))).exists()  # SQLite has it beside the file
    assert linked.path == direct.path
    assert [each.name for each in link.parent.iterdir()] == ["link.db"]
    linked.dispose()
    direct.dispose()


def add_and_fail(database: Database, name: str) -> None:
    with database.writing() as connection:
        domains.add_domain(connection, name)
        raise LookupError


def test_sqlite_is_written_on_one_connection_until_it_is_closed(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    first = written_on(database, "one.example")
    with database.reading() as reading:
        assert reading.connection.driver_connection is not first
    assert written_on(database, "two.example") is first
    database.dispose()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        first.execute("SELECT 1")
    assert written_on(database, "three.example") is not first
    database.dispose()


@pytest.mark.parametrize("page_octets", [8192, 16384])
def test_a_file_keeps_its_pages_and_what_is_reckoned_in_octets(tmp_path: Path, page_octets: int) -> None:
    file = sqlite3.connect(tmp_path / "mail.db", isolation_level=None)
    file.execute(f"PRAGMA page_size={page_octets}")
    file.execute("CREATE TABLE content (octets BLOB)")
    file.execute("INSERT INTO content VALUES (zeroblob(?))", (10 * page_octets,))
    file.execute("DELETE FROM content")
    (free,) = file.execute("PRAGMA freelist_count").fetchone()
    file.close()
    database = Database(f"sqlite:///{tmp_path}/mail.db")
    with database.reading() as connection:
        assert reusable_octets(connection) == free * page_octets > 0
        pages = connection.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar_one()
    assert pages * page_octets == 128 * 1024 * 1024
    database.dispose()


def test_what_failed_is_undone_and_the_next_is_written(database: Database) -> None:
    written_on(database, "one.example")
    with pytest.raises(LookupError):
        add_and_fail(database, "two.example")
    written_on(database, "three.example")
    with database.reading() as reading:
        assert reading.scalar(select(func.count()).select_from(domain)) == 2
    assert database.engine.pool.checkedout() == database.is_sqlite  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("octets", "expected"), [(0, 8 << 10), (1 << 30, 8 << 10), (1 << 31, 16 << 10), (1 << 40, 32 << 10)]
)
def test_a_large_database_is_written_with_more_of_it_in_memory(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, octets: int, expected: int
) -> None:
    monkeypatch.setattr(Database, "octets", octets)
    database = Database(sqlite_url)
    with database.writing() as connection:
        assert connection.exec_driver_sql("PRAGMA cache_size").scalar_one() == -expected
    with database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA cache_size").scalar_one() == -(8 << 10)
    database.dispose()


def test_a_reader_thread_has_little_of_it_in_memory_and_the_writer_as_much_as_ever(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    reading = Reading(database)
    with reading.transaction() as connection:
        assert connection.exec_driver_sql("PRAGMA cache_size").scalar_one() == -512
        reader = connection.connection.driver_connection
    reading.close()
    assert written_on(database, "one.example") is reader
    with database.writing() as connection:
        assert connection.exec_driver_sql("PRAGMA cache_size").scalar_one() == -(8 << 10)
    database.dispose()


def written(database: Database) -> None:
    with database.writing() as connection:
        connection.execute(delete(domain))


def read_by_a_thread(database: Database) -> None:
    reading = Reading(database)
    try:
        with reading.transaction() as connection:
            connection.scalar(select(func.count()).select_from(domain))
    finally:
        reading.close()


def glanced(database: Database) -> None:
    async def glance() -> None:
        made = Glance(database)
        await made.connected()
        await made.close()

    asyncio.run(glance())


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize(
    "use",
    [
        written,
        read_by_a_thread,
        lambda database: database.checkpoint("RESTART"),
        glanced,
    ],
    ids=["writing", "reading", "checkpoint", "glance"],
)
def test_no_failure_leaves_a_connection_behind(
    sqlite_url: str, use: Callable[[Database], object], kind: Kind
) -> None:
    """One that only the trace of an error knows is not closed, and may be lent again in any state."""
    database = Database(sqlite_url)
    faults, made = Faults(database), list[sqlite3.Connection]()
    event.listen(database.engine, "connect", lambda connection, _record: made.append(connection))
    for number in itertools.count():
        errors: list[StoreUnavailable] = []
        with faults.at(number, kind):
            try:
                use(database)
            except StoreUnavailable as error:
                errors.append(error)
        with database.reading() as connection:
            assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one() == 10_000, faults.struck
        database.dispose()
        assert not any(map(is_open, made)), faults.struck
        if faults.struck is None:
            assert not errors
            break
    assert number >= 2


def is_open(connection: sqlite3.Connection) -> bool:
    try:
        connection.total_changes  # noqa: B018
    except sqlite3.ProgrammingError:
        return False
    return True
