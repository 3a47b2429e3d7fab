"""Before a schema changes there is a copy that was verified."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from mailstack.errors import StoreFull, StoreUnavailable
from mailstack.store import migrate, rehearsal, snapshots
from mailstack.store.engine import Database
from tests.support import maildrops

JO = "jo@example.org"


def test_a_snapshot_has_all_of_it(older: Database, tmp_path: Path) -> None:
    before = rehearsal.fingerprint(older)
    path = snapshots.take(older, tmp_path / "snapshots", "0001")
    assert path.name.startswith("0001-")
    assert path.stat().st_mode & 0o77 == 0
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    if older.is_sqlite:
        copy = Database(f"sqlite:///{path}")
        assert rehearsal.fingerprint(copy) == before
        copy.dispose()


def test_two_upgrades_at_once_make_one_snapshot(older: Database, tmp_path: Path) -> None:
    copied, go_on = threading.Event(), threading.Event()
    other = Database(older.url.render_as_string(hide_password=False))
    said: list[str] = []

    def copy_and_wait(found: str) -> None:
        snapshots.take(older, tmp_path / "snapshots", found)
        copied.set()
        assert go_on.wait(30)

    def second_says(text: str) -> None:
        said.append(text)
        go_on.set()

    def copy(found: str) -> None:
        snapshots.take(other, tmp_path / "snapshots", found)

    first = threading.Thread(
        target=migrate.upgrade, args=(older, lambda said: None), kwargs={"first": copy_and_wait}
    )
    first.start()
    assert copied.wait(30)
    assert not migrate.upgrade(other, second_says, first=copy)
    first.join()
    other.dispose()
    assert said == ["another upgrade of this database is running; waiting for it"]
    assert len(list((tmp_path / "snapshots").iterdir())) == 1


def test_what_a_killed_upgrade_left_is_removed(older: Database, tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    folder.mkdir()
    (folder / "0001-20261126T000000Z.db.partial").write_bytes(b"half")
    path = snapshots.take(older, folder, "0001")
    assert list(folder.iterdir()) == [path]


def test_without_its_program_postgresql_says_how(
    postgresql_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    database = Database(postgresql_url)
    with pytest.raises(StoreUnavailable, match="pg_dump --format=custom"):
        snapshots.take(database, tmp_path / "snapshots", "0001")
    database.dispose()


def test_a_disk_without_room_is_told_before_anything_is_written(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(sqlite_url)
    usage = snapshots.shutil.disk_usage(tmp_path)._replace(free=1)
    monkeypatch.setattr(snapshots.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StoreFull, match="--no-snapshot"):
        snapshots.take(database, tmp_path / "snapshots", "0001")
    assert list((tmp_path / "snapshots").iterdir()) == []
    database.dispose()


def test_mail_that_flows_meanwhile_does_not_make_it_begin_anew(sqlite_url: str, tmp_path: Path) -> None:
    database = Database(sqlite_url)
    maildrops.add_accounts(database, JO)
    for _ in range(3):
        maildrops.deposit(database, b"x" * 8_000_000 + b"\r\n", JO)
    stop = threading.Event()

    def busy() -> None:
        with_it = Database(sqlite_url)
        while not stop.is_set():
            maildrops.deposit(with_it, b"Subject: busy\r\n\r\n", JO)
        with_it.dispose()

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        path = snapshots.take(database, tmp_path / "snapshots", "0001")
    finally:
        stop.set()
        thread.join()
    file = sqlite3.connect(path)
    assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert file.execute("SELECT count(*) = messages FROM entry, account GROUP BY messages").fetchone() == (1,)
    file.close()
    database.dispose()
