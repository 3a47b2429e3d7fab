"""A backup on a disk that forgets pages: what lies elsewhere comes back, and what is lost is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailstack.errors import BadData
from mailstack.store import migrate
from mailstack.store.backups import prune
from mailstack.store.backups.folder import Folder
from mailstack.store.engine import Database
from mailstack.store.sqlite import PAGE_OCTETS
from tests.store.test_lost_pages import leaf_in_the_middle
from tests.support import maildrops
from tests.support.backups import JO, back_up, expunge, mail, restore, restored, verify

MESSAGES = 40


@pytest.fixture
def filled(database: Database) -> Database:
    fill(database)
    return database


def fill(database: Database) -> None:
    """A maildrop of messages of which two are on a page."""
    maildrops.add_accounts(database, JO)
    for number in range(1, MESSAGES + 1):
        maildrops.deposit(
            database, b"Subject: %d\r\n\r\n%b\r\n" % (number, b"x" * (PAGE_OCTETS * 3 // 8)), JO
        )


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "backups")


@pytest.fixture
def empty(sqlite_template: Path, tmp_path: Path) -> Database:
    """A store to restore into."""
    database = Database(f"sqlite:///{tmp_path}/empty.db")
    migrate.upgrade(database, lambda said: None)
    return database


def lose_page(path: Path, table: str) -> None:
    """One page in the middle of that table has nothing but zeros."""
    page = leaf_in_the_middle(path, table)
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE_OCTETS)
        file.write(bytes(PAGE_OCTETS))


def named(said: list[str]) -> list[int]:
    return [int(each.split()[1]) for each in said if each.startswith("message ") and " is damaged: " in each]


def test_a_page_of_content_costs_the_messages_that_lie_on_it(
    filled: Database, folder: Folder, empty: Database, tmp_path: Path
) -> None:
    before = mail(filled, "jo")
    back_up(filled, folder)
    (path,) = folder.archives()
    lose_page(path, "content")
    found = verify(folder)
    lost = named(found)
    assert 1 <= len(lost) == len(found) <= 2
    assert restore(empty, folder, tmp_path) == found
    kept = {
        unique_id: octets
        for number, (unique_id, octets) in enumerate(before.items(), 1)
        if number not in lost
    }
    expunge(empty, 1, *lost)
    assert mail(empty, "jo") == kept
    expunge(filled, 1, *range(1, MESSAGES + 1))
    said = restored(filled, folder, tmp_path, "jo").findings
    assert said == found
    assert mail(filled, "jo") == kept
    empty.dispose()


def test_a_list_of_messages_is_told_and_done_without(
    filled: Database, folder: Folder, empty: Database, tmp_path: Path
) -> None:
    before = mail(filled, "jo")
    back_up(filled, folder)
    (path,) = folder.archives()
    lose_page(path, "message")
    (said,) = verify(folder)
    assert said.startswith(f"{path} cannot be read: ")
    assert restore(empty, folder, tmp_path) == [said]
    assert mail(empty, "jo") == before
    empty.dispose()


def test_an_archive_that_is_lost_whole_does_not_stop_a_restore(
    filled: Database, folder: Folder, empty: Database, tmp_path: Path
) -> None:
    back_up(filled, folder)
    maildrops.deposit(filled, b"Subject: new\r\n\r\n", JO)
    back_up(filled, folder)
    first, _ = folder.archives()
    first.write_bytes(b"?" * PAGE_OCTETS)
    found = restore(empty, folder, tmp_path)
    assert found[0].startswith(f"{first} cannot be read: ")
    assert len(found) == 1 + MESSAGES
    expunge(empty, 1, *range(1, MESSAGES + 1))
    assert list(mail(empty, "jo").values()) == [list(mail(filled, "jo").values())[-1]]
    empty.dispose()


def test_the_next_backup_names_the_archive(filled: Database, folder: Folder) -> None:
    back_up(filled, folder)
    (path,) = folder.archives()
    lose_page(path, "message")
    with pytest.raises(BadData, match=f"^{path} cannot be read: .*; back up into a new folder$"):
        back_up(filled, folder)


def test_removing_old_backups_names_the_archive(filled: Database, folder: Folder) -> None:
    back_up(filled, folder)
    expunge(filled, 1, *range(1, MESSAGES - 4))
    maildrops.deposit(filled, b"Subject: new\r\n\r\n", JO)
    back_up(filled, folder)
    path, _ = folder.archives()
    lose_page(path, "message")
    with pytest.raises(BadData, match=f"^{path} cannot be read: "):
        prune.prune(folder, 1)


def test_removing_old_backups_names_the_backup_that_cannot_be_read(filled: Database, folder: Folder) -> None:
    back_up(filled, folder)
    maildrops.deposit(filled, b"Subject: new\r\n\r\n", JO)
    kept = back_up(filled, folder).made
    assert kept is not None
    lose_page(kept.path / "mail.db", "message")
    with pytest.raises(BadData, match=f"^{kept.path / 'mail.db'} cannot be read: "):
        prune.prune(folder, 1)
    assert len(folder.archives()) == 2


def test_a_damaged_backup_that_cannot_be_read_keeps_no_old_one_from_going(
    filled: Database, folder: Folder
) -> None:
    damaged = back_up(filled, folder).made
    back_up(filled, folder)
    expunge(filled, 1, *range(1, MESSAGES + 1))
    maildrops.deposit(filled, b"Subject: new\r\n\r\n", JO)
    back_up(filled, folder)
    assert damaged is not None
    (damaged.path / "backup.json").unlink()
    lose_page(damaged.path / "mail.db", "message")
    done = prune.prune(folder, 1)
    assert (done.backups, [each.path for each in done.damaged]) == (1, [damaged.path])


def test_a_store_with_a_lost_page_is_backed_up_but_for_what_lies_on_it(
    sqlite_url: str, folder: Folder, empty: Database, tmp_path: Path
) -> None:
    store = Database(sqlite_url)
    fill(store)
    before = mail(store, "jo")
    store.checkpoint("TRUNCATE")
    store.dispose()
    lose_page(Path(sqlite_url.removeprefix("sqlite:///")), "content")
    damaged = back_up(store, folder).damaged
    lost = named(damaged)
    assert 1 <= len(lost) == len(damaged) <= 2
    assert back_up(store, folder).damaged == damaged
    assert verify(folder) == damaged
    assert restore(empty, folder, tmp_path) == damaged
    expunge(empty, 1, *lost)
    assert mail(empty, "jo") == dict(
        each for number, each in enumerate(before.items(), 1) if number not in lost
    )
    store.dispose()
    empty.dispose()


@pytest.mark.parametrize("table", ["account", "entry"])
def test_the_rest_is_named_and_not_taken_for_the_store(
    filled: Database, folder: Folder, empty: Database, tmp_path: Path, table: str
) -> None:
    path = back_up(filled, folder).made
    assert path is not None
    lose_page(path.path / "mail.db", table)
    said = f"^{path.path / 'mail.db'} cannot be read: "
    with pytest.raises(BadData, match=said):
        restore(empty, folder, tmp_path)
    with pytest.raises(BadData, match=said):
        restored(filled, folder, tmp_path, "jo")
    empty.dispose()
