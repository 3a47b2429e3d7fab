"""A message that is damaged when it is backed up: told of every night, and backed up once it can be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from mailstack.mail.spool import PART_OCTETS
from mailstack.store import migrate
from mailstack.store.backups import prune
from mailstack.store.backups.folder import Folder
from mailstack.store.engine import Database
from mailstack.store.parts import content_id
from mailstack.store.tables import content
from tests.support import maildrops
from tests.support.backups import JO, KIM, LARGE, back_up, bring_back, expunge, mail, restore, verify
from tests.support.contents import findings

LARGE_ID = 21
DAMAGE = f"message {LARGE_ID} is damaged: of its {len(LARGE)} octets {len(LARGE) - PART_OCTETS + 1} are there"


@pytest.fixture
def empty(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    """A store to restore into."""
    database = Database(f"sqlite:///{tmp_path}/empty.db")
    migrate.upgrade(database, lambda said: None)
    yield database
    database.dispose()


def change(database: Database, octets: bytes) -> bytes:
    """Change a part of Kim's large message; what it was."""
    with database.reading() as connection:
        mine = content.c.id == content_id(LARGE_ID, 1)
        before = connection.execute(select(content.c.octets).where(mine)).scalar_one()
    maildrops.overwrite(database, LARGE_ID, octets, part=1)
    return bytes(before)


def test_each_backup_tells_of_it_and_none_copies_it_again(two_maildrops: Database, folder: Folder) -> None:
    change(two_maildrops, b"?")
    assert back_up(two_maildrops, folder).damaged == [DAMAGE]
    maildrops.deposit(two_maildrops, b"Subject: new\r\n\r\n", JO)
    run = back_up(two_maildrops, folder)
    assert (run.damaged, run.copied) == ([DAMAGE], len(b"Subject: new\r\n\r\n"))
    run = back_up(two_maildrops, folder)
    assert (run.damaged, run.copied) == ([DAMAGE], 0)
    assert len(folder.archives()) == 2
    assert verify(folder) == [DAMAGE]


def test_what_is_left_of_it_is_restored(
    two_maildrops: Database, folder: Folder, empty: Database, tmp_path: Path
) -> None:
    change(two_maildrops, b"?")
    for _ in range(2):
        back_up(two_maildrops, folder)
    assert restore(empty, folder, tmp_path) == [DAMAGE]
    with empty.reading() as connection:
        assert connection.execute(select(content.c.id).where(content.c.octets == b"?")).scalar_one()


def test_once_it_can_be_read_every_backup_has_it_whole(
    two_maildrops: Database, folder: Folder, empty: Database, tmp_path: Path
) -> None:
    was = change(two_maildrops, b"?")
    back_up(two_maildrops, folder)
    change(two_maildrops, was)
    before = mail(two_maildrops, "kim")
    run = back_up(two_maildrops, folder)
    assert (run.damaged, run.copied) == ([], len(LARGE))
    assert back_up(two_maildrops, folder).copied == 0
    for made in folder.backups():
        assert verify(folder, made.name) == []
    assert restore(empty, folder, tmp_path) == []
    assert mail(empty, "kim") == before
    assert findings(empty) == []
    expunge(two_maildrops, 2, 21)
    assert bring_back(two_maildrops, folder, tmp_path, "kim") == 1
    assert mail(two_maildrops, "kim") == before


def test_one_that_has_gone_meanwhile_is_told_of_no_more(two_maildrops: Database, folder: Folder) -> None:
    change(two_maildrops, b"?")
    back_up(two_maildrops, folder)
    expunge(two_maildrops, 2, 21)
    assert back_up(two_maildrops, folder).damaged == []
    assert verify(folder) == []


def test_an_archive_that_is_written_anew_remembers_it(two_maildrops: Database, folder: Folder) -> None:
    was = change(two_maildrops, b"?")
    maildrops.deposit(two_maildrops, LARGE * 4, JO)
    back_up(two_maildrops, folder)
    expunge(two_maildrops, 1, *range(1, 22))
    maildrops.deposit(two_maildrops, b"Subject: new\r\n\r\n", JO)
    back_up(two_maildrops, folder)
    assert prune.prune(folder, 1).octets > 0
    assert verify(folder) == [DAMAGE]
    assert back_up(two_maildrops, folder).damaged == [DAMAGE]
    change(two_maildrops, was)
    assert back_up(two_maildrops, folder).damaged == []
    assert verify(folder) == []


def test_what_was_left_of_it_goes_once_an_archive_has_it_whole(
    two_maildrops: Database, folder: Folder
) -> None:
    was = change(two_maildrops, b"?")
    back_up(two_maildrops, folder)
    change(two_maildrops, was)
    back_up(two_maildrops, folder)
    maildrops.deposit(two_maildrops, b"Subject: new\r\n\r\n", KIM)
    back_up(two_maildrops, folder)
    old, *_ = folder.archives()
    prune.prune(folder, 1)
    assert not old.exists()
    assert sum(path.stat().st_size for path in folder.archives()) < len(LARGE) + PART_OCTETS
    assert verify(folder) == []
