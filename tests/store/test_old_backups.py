"""Backups that go, and backups that the disk has damaged: neither takes another one along."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailstack.errors import BadData
from mailstack.mail.spool import PART_OCTETS
from mailstack.store.backups import prune
from mailstack.store.backups.folder import Folder
from mailstack.store.engine import Database
from tests.support import maildrops
from tests.support.backups import JO, LARGE, back_up, expunge, verify


def test_old_backups_go_and_what_only_they_had_goes_with_them(
    two_maildrops: Database, folder: Folder
) -> None:
    back_up(two_maildrops, folder)
    expunge(two_maildrops, 2, *range(1, 22))
    expunge(two_maildrops, 1, *range(2, 21))
    maildrops.deposit(two_maildrops, b"Subject: new\r\n\r\n", JO)
    back_up(two_maildrops, folder)
    maildrops.deposit(two_maildrops, b"Subject: newest\r\n\r\n", JO)
    back_up(two_maildrops, folder)
    went = prune.prune(folder, 1)
    assert went.backups == 2
    assert went.octets > len(LARGE)
    assert len(folder.backups()) == 1
    assert verify(folder) == []
    size = sum(path.stat().st_size for path in folder.archives())
    assert size < PART_OCTETS
    assert back_up(two_maildrops, folder).copied == 0


@pytest.mark.parametrize("damage", [b"?", b"[]", None])
def test_a_damaged_backup_hides_no_other_one(
    two_maildrops: Database, folder: Folder, damage: bytes | None
) -> None:
    old, middle, new = (back_up(two_maildrops, folder).made for _ in range(3))
    assert old is not None
    assert middle is not None
    spoil(old.path, damage)
    assert folder.find(None) == new
    assert folder.find(middle.name) == middle
    assert folder.backups() == [middle, new]
    assert [each.name for each in folder.looked_through()[1]] == [old.name]
    with pytest.raises(BadData, match=f"{old.name}/backup.json cannot be read"):
        folder.find(old.name)


def test_a_damaged_backup_is_neither_kept_nor_removed_and_keeps_its_content(
    two_maildrops: Database, folder: Folder
) -> None:
    damaged = back_up(two_maildrops, folder).made
    expunge(two_maildrops, 2, *range(1, 22))
    backups = []
    for number in range(3):
        maildrops.deposit(two_maildrops, b"Subject: %d\r\n\r\n" % number, JO)
        backups.append(back_up(two_maildrops, folder).made)
    assert damaged is not None
    spoil(damaged.path, b"")
    went = prune.prune(folder, 2)
    assert (went.backups, went.octets) == (1, 0)
    assert [each.name for each in went.damaged] == [damaged.name]
    assert folder.backups() == backups[1:]
    (damaged.path / "mail.db").write_bytes(b"?")  # now nothing says what its content was
    assert prune.prune(folder, 1).octets == len(LARGE)
    assert verify(folder) == []


def spoil(backup: Path, damage: bytes | None) -> None:
    """Write this over the facts of a backup; None removes them."""
    if damage is None:
        (backup / "backup.json").unlink()
    else:
        (backup / "backup.json").write_bytes(damage)
