"""An upgrade can be rehearsed: on a copy, which leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from mailstack.errors import StoreUnavailable
from mailstack.store import migrate, rehearsal, schema
from mailstack.store.engine import Database


def test_a_rehearsal_changes_nothing(older: Database, tmp_path: Path) -> None:
    told = rehearsal.rehearse(older, tmp_path / "snapshots", lambda said: None)
    assert (told.before, told.after, told.findings) == ("0001", schema.HEAD, ())
    assert list((tmp_path / "snapshots").iterdir()) == []
    with older.reading() as connection:
        assert schema.revision(connection) == "0001"
    if not older.is_sqlite:
        with older.reading() as connection:
            names = connection.execute(text("SELECT datname FROM pg_database")).scalars().all()
        assert not [name for name in names if name.endswith("_rehearsal")]


def test_what_a_killed_rehearsal_left_is_removed(older: Database, tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    (folder / "rehearsal").mkdir(parents=True)
    (folder / "rehearsal" / "mail.db").write_bytes(b"half")
    rehearsal.rehearse(older, folder, lambda said: None)
    assert list(folder.iterdir()) == []


@pytest.fixture
def in_the_way(postgresql_url: str) -> Iterator[Database]:
    """A server that has a database of the name that a rehearsal's copy gets."""
    database = Database(postgresql_url)
    migrate.upgrade(database, lambda said: None)
    outside(database, f'CREATE DATABASE "{database.url.database}_rehearsal"')
    yield database
    outside(database, f'DROP DATABASE IF EXISTS "{database.url.database}_rehearsal"')
    database.dispose()


def outside(database: Database, statement: str) -> None:
    with database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text(statement))


def test_the_database_that_a_killed_rehearsal_left_is_removed(in_the_way: Database, tmp_path: Path) -> None:
    name = f"{in_the_way.url.database}_rehearsal"
    outside(in_the_way, f"COMMENT ON DATABASE \"{name}\" IS '{rehearsal.REHEARSED}'")
    told = rehearsal.rehearse(in_the_way, tmp_path / "snapshots", lambda said: None)
    assert (told.after, told.findings) == (schema.HEAD, ())


def test_a_database_of_that_name_that_is_not_ours_stays(in_the_way: Database, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"_rehearsal\" already exists"):
        rehearsal.rehearse(in_the_way, tmp_path / "snapshots", lambda said: None)


def test_a_rehearsal_tells_what_would_be_lost(
    older: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade = migrate.upgrade

    def forgetful(database: Database, report: migrate.Report) -> bool:
        changed = upgrade(database, report)
        with database.writing() as connection:
            connection.execute(text("UPDATE entry SET unique_id = 'new.' || uid"))
        return changed

    monkeypatch.setattr(migrate, "upgrade", forgetful)
    told = rehearsal.rehearse(older, tmp_path / "snapshots", lambda said: None)
    assert told.findings == ("the upgrade changes accounts, messages or unique-ids",)
