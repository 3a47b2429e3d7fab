"""A backup is one moment of the store, whole; what comes back from it is what was there."""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select, update

from mailstack.errors import AlreadyRunning, AlreadyThere, BadData, NotFound, StoreFull
from mailstack.mail.spool import PART_OCTETS
from mailstack.store import bulk, facts, fetching, migrate, removal
from mailstack.store.backups import archive
from mailstack.store.backups.folder import Folder, filling
from mailstack.store.backups.make import Backup
from mailstack.store.backups.restore import Restoration
from mailstack.store.bulk import PARTS_A_STEP
from mailstack.store.engine import Database
from mailstack.store.removal import Expunge
from mailstack.store.tables import account, content, message
from tests.support import maildrops, postgresql
from tests.support.backups import JO, KIM, LARGE, back_up, expunge, mail, restore, validity, verify
from tests.support.contents import findings

SPOIL = (
    "UPDATE content SET octets = CAST(replace(CAST(octets AS TEXT), ': 3', ': E') AS BLOB) WHERE id = 4 << 16"
)


@pytest.fixture(params=["sqlite", "postgresql"])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty store to restore into, of each kind for a backup of each kind."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path}/other.db")
        migrate.upgrade(database, lambda said: None)
        yield database
        database.dispose()
        return
    server = request.getfixturevalue("postgresql_server")
    database = Database(postgresql.create_database(server, "other", template="template"))
    yield database
    database.dispose()
    postgresql.drop_database(server, "other")


def test_a_store_comes_back_on_either_database(
    two_maildrops: Database, folder: Folder, other: Database, tmp_path: Path
) -> None:
    more_than_a_step = b"Subject: long\r\n\r\n" + b"x" * (PARTS_A_STEP + 8) * PART_OCTETS + b"\r\n"
    maildrops.deposit(two_maildrops, more_than_a_step, JO)
    before = {name: mail(two_maildrops, name) for name in ("jo", "kim")}
    run = back_up(two_maildrops, folder)
    assert run.made is not None
    assert run.made.facts.messages == 42
    assert verify(folder) == []
    assert restore(other, folder, tmp_path) == []
    assert {name: mail(other, name) for name in ("jo", "kim")} == before
    assert findings(other) == []
    assert validity(other, "jo") > validity(two_maildrops, "kim")
    assert validity(other, "jo") != validity(other, "kim")


def test_new_mail_after_a_restore_has_numbers_that_nothing_ever_had(
    two_maildrops: Database, folder: Folder, other: Database, tmp_path: Path
) -> None:
    back_up(two_maildrops, folder)
    maildrops.deposit(two_maildrops, b"Subject: lost\r\n\r\n", JO)  # given out after the backup
    lost = set(mail(two_maildrops, "jo"))
    restore(other, folder, tmp_path)
    number = maildrops.deposit(other, b"Subject: new\r\n\r\n", JO)
    assert number == 22
    (new,) = set(mail(other, "jo")) - lost
    assert list(mail(other, "jo"))[-1] == new
    assert findings(other) == []


def test_what_was_left_over_is_removed_after_a_restore_too(
    two_maildrops: Database, folder: Folder, other: Database, tmp_path: Path
) -> None:
    with two_maildrops.writing() as connection:
        removal.expunge(connection, [Expunge(2, [20, 21])])
    back_up(two_maildrops, folder)
    restore(other, folder, tmp_path)
    assert findings(other) == []
    expunge(other, 1, 20)
    with other.reading() as connection:
        for table in (message, content):
            assert connection.scalar(select(func.count()).select_from(table)) == 19
    assert findings(other) == []


def test_the_next_backup_adds_only_what_is_new(two_maildrops: Database, folder: Folder) -> None:
    assert back_up(two_maildrops, folder).copied > len(LARGE)
    assert back_up(two_maildrops, folder).copied == 0
    new = b"Subject: new\r\n\r\n"
    maildrops.deposit(two_maildrops, new, JO)
    expunge(two_maildrops, 1, 1, 2)
    assert back_up(two_maildrops, folder).copied == len(new)
    assert [each.facts.messages for each in folder.backups()] == [41, 41, 40]
    for made in folder.backups():
        assert verify(folder, made.name) == []


def test_mail_that_comes_and_goes_meanwhile_leaves_one_moment(
    two_maildrops: Database, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "GROUP_MESSAGES", 3)
    stop = threading.Event()

    def busy() -> None:
        with_it = Database(two_maildrops.url.render_as_string(hide_password=False))
        uid = 1
        while not stop.is_set():
            maildrops.deposit(with_it, b"Subject: busy\r\n\r\n", JO, KIM)
            expunge(with_it, 1, uid)
            uid += 1
        with_it.dispose()

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(3):
            run = back_up(two_maildrops, folder)
            assert run.damaged == []
            assert verify(folder) == []
    finally:
        stop.set()
        thread.join()
    assert findings(two_maildrops) == []


def test_content_that_came_in_the_last_moment_is_in_the_backup(
    two_maildrops: Database, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = folder.begin

    def late() -> Path:
        maildrops.deposit(two_maildrops, LARGE, JO)
        return begin()

    monkeypatch.setattr(folder, "begin", late)
    assert back_up(two_maildrops, folder).copied > 2 * len(LARGE)
    assert verify(folder) == []
    assert len(folder.archives()) == 2


def test_a_backup_that_was_cut_off_is_none_and_the_next_one_goes_on(
    two_maildrops: Database, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Backup(two_maildrops, folder).run()
    next(steps)
    steps.close()
    with pytest.raises(NotFound, match="no finished backup"):
        folder.find(None)
    monkeypatch.setattr("mailstack.store.backups.archive.ARCHIVE_OCTETS", 1)
    back_up(two_maildrops, folder)
    assert verify(folder) == []
    assert {path.suffix for path in (folder.path / "content").iterdir()} == {".db"}
    assert back_up(two_maildrops, folder).copied == 0


def test_two_backups_at_once_are_one_too_many(two_maildrops: Database, folder: Folder) -> None:
    back_up(two_maildrops, folder)
    with folder.alone(), pytest.raises(AlreadyRunning):
        back_up(two_maildrops, folder)


def test_a_folder_of_another_store_or_of_other_things_is_refused(
    two_maildrops: Database, folder: Folder, tmp_path: Path
) -> None:
    back_up(two_maildrops, folder)
    with two_maildrops.writing() as connection:
        facts.put(connection, facts.IDENTITY, 1)
    with pytest.raises(BadData, match="another store"):
        back_up(two_maildrops, folder)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpeg").write_bytes(b"")
    with pytest.raises(BadData, match="not empty"):
        back_up(two_maildrops, Folder(tmp_path / "photos"))
    with pytest.raises(BadData, match="no folder of backups"):
        Folder(tmp_path / "photos").open()


def test_other_mail_under_the_same_numbers_is_noticed(two_maildrops: Database, folder: Folder) -> None:
    back_up(two_maildrops, folder)
    with two_maildrops.writing() as connection:
        connection.execute(update(message).where(message.c.id == 3).values(octets=1))
    with pytest.raises(BadData, match="another message 3"):
        back_up(two_maildrops, folder)


def test_a_restore_into_a_store_with_mail_is_refused(
    two_maildrops: Database, folder: Folder, tmp_path: Path
) -> None:
    back_up(two_maildrops, folder)
    with pytest.raises(AlreadyThere, match="restore one account"):
        restore(two_maildrops, folder, tmp_path)
    assert findings(two_maildrops) == []


def test_a_restore_that_was_cut_off_can_be_done_again(
    two_maildrops: Database, folder: Folder, other: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailstack.store.backups.restore._STEP_OCTETS", 1)
    back_up(two_maildrops, folder)
    steps = Restoration(other, folder, folder.find(None), tmp_path).run()
    for _ in range(5):
        next(steps)
    steps.close()
    assert restore(other, folder, tmp_path) == []
    assert mail(other, "kim") == mail(two_maildrops, "kim")
    assert findings(other) == []


def test_verify_finds_an_octet_that_changed(two_maildrops: Database, folder: Folder) -> None:
    back_up(two_maildrops, folder)
    _edit(
        folder, "UPDATE content SET octets = replace(octets, 'Subject: 3', 'Subject: E') WHERE id = 4 << 16"
    )
    assert verify(folder) == ["message 4 is damaged: its content is not what was deposited"]


def test_verify_finds_a_part_that_is_missing(two_maildrops: Database, folder: Folder) -> None:
    back_up(two_maildrops, folder)
    _edit(folder, "DELETE FROM content WHERE id = (21 << 16) + 1")
    present = len(LARGE) - PART_OCTETS
    assert verify(folder) == [f"message 21 is damaged: of its {len(LARGE)} octets {present} are there"]


def test_verify_finds_a_missing_and_a_broken_archive(two_maildrops: Database, folder: Folder) -> None:
    back_up(two_maildrops, folder)
    (archive,) = folder.archives()
    octets = archive.read_bytes()
    archive.write_bytes(b"?" * len(octets))
    findings = verify(folder)
    assert findings[0].startswith(f"{archive} cannot be read:")
    assert findings[1] == "message 1 is in no archive"
    archive.unlink()
    assert verify(folder)[-1] == "1 more messages are in no archive"


def test_a_damaged_backup_restores_what_it_has_and_names_the_rest(
    two_maildrops: Database, folder: Folder, other: Database, tmp_path: Path
) -> None:
    back_up(two_maildrops, folder)
    _edit(
        folder, "UPDATE content SET octets = replace(octets, 'Subject: 3', 'Subject: E') WHERE id = 4 << 16"
    )
    assert restore(other, folder, tmp_path) == ["message 4 is damaged: its content is not what was deposited"]
    with other.reading() as connection, pytest.raises(Exception, match="message 4 is damaged"):
        fetching.open_message(connection, 1, 4)


def test_damage_in_the_store_is_told_by_the_backup(two_maildrops: Database, folder: Folder) -> None:
    maildrops.overwrite(two_maildrops, 2, b"?")
    assert back_up(two_maildrops, folder).damaged == ["message 2 is damaged: of its 17 octets 1 are there"]


def _edit(folder: Folder, statement: str) -> None:
    (archive,) = folder.archives()
    with closing(sqlite3.connect(archive)) as file, file:
        file.execute(
            statement.replace(
                "octets = replace(octets", "octets = CAST(replace(CAST(octets AS TEXT)"
            ).replace("E') W", "E') AS BLOB) W")
        )


def test_a_backup_of_an_older_schema_restores(
    sqlite_url: str, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(sqlite_url)
    maildrops.add_accounts(database, JO)
    maildrops.deposit(database, b"Subject: old\r\n\r\n", JO)
    back_up(database, folder)
    made = folder.find(None)
    older = Database(f"sqlite:///{made.path / 'mail.db'}")
    migrate.downgrade(older, lambda said: None, revision="0001")
    older.dispose()
    find = folder.find
    monkeypatch.setattr(
        folder, "find", lambda name: find(name)._replace(facts=made.facts._replace(revision="0001"))
    )
    empty = Database(f"sqlite:///{tmp_path}/empty.db")
    migrate.upgrade(empty, lambda said: None)
    assert restore(empty, folder, tmp_path) == []
    assert mail(empty, "jo") == mail(database, "jo")
    for each in (database, empty):
        each.dispose()


def test_a_backup_keeps_nobody_waiting(two_maildrops: Database, folder: Folder) -> None:
    """Between any two steps a writer gets through at once: no step leaves a transaction open."""
    if not two_maildrops.is_sqlite:
        pytest.skip("PostgreSQL's writers never wait for readers")
    for _ in Backup(two_maildrops, folder).run():
        with two_maildrops.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout=0")
            connection.connection.cursor().execute("ROLLBACK")
            connection.connection.cursor().execute("BEGIN IMMEDIATE")
            connection.connection.cursor().execute("ROLLBACK")
            connection.exec_driver_sql("PRAGMA busy_timeout=10000")


def test_a_full_disk_is_told_as_such_and_keeps_what_there_is(
    two_maildrops: Database, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(two_maildrops, folder)
    maildrops.deposit(two_maildrops, LARGE, KIM)
    # What SQLite says where a file cannot grow, whatever keeps it from that.
    monkeypatch.setattr(
        archive, "_SCHEMA", (*archive._SCHEMA[:1], "PRAGMA max_page_count=3", *archive._SCHEMA[1:])
    )
    with pytest.raises(StoreFull, match=f"the disk of {folder.path} is full"):
        back_up(two_maildrops, folder)
    monkeypatch.undo()
    assert verify(folder) == []
    back_up(two_maildrops, folder)
    assert verify(folder) == []


def test_a_file_that_a_full_disk_does_not_take_is_told_in_the_same_words(tmp_path: Path) -> None:
    with pytest.raises(StoreFull, match=f"the disk of {tmp_path} is full"), filling(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("left", ["mailstack-backup.json.partial", "mailstack-backup.json.0f3a.partial"])
def test_a_folder_that_was_only_begun_can_be_begun_again(
    two_maildrops: Database, folder: Folder, left: str
) -> None:
    folder.path.mkdir()
    (folder.path / left).write_text("")
    back_up(two_maildrops, folder)
    assert verify(folder) == []


def test_the_age_of_the_last_backup_is_remembered(two_maildrops: Database, folder: Folder) -> None:
    with two_maildrops.reading() as connection:
        assert facts.get(connection, facts.LAST_BACKUP) is None
    back_up(two_maildrops, folder)
    with two_maildrops.reading() as connection:
        assert facts.get(connection, facts.LAST_BACKUP) is not None
        assert connection.execute(select(func.count()).select_from(account)).scalar_one() == 2


def test_an_empty_store_can_be_backed_up(database: Database, folder: Folder, tmp_path: Path) -> None:
    back_up(database, folder)
    assert verify(folder) == []
    with database.writing() as connection:
        connection.execute(delete(content))
    assert restore(database, folder, tmp_path) == []
