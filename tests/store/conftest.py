"""What the tests of backups and of copies before an upgrade start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailstack.store import migrate
from mailstack.store.backups.folder import Folder
from mailstack.store.engine import Database
from tests.support import maildrops
from tests.support.backups import JO, KIM, LARGE


@pytest.fixture
def two_maildrops(database: Database) -> Database:
    """Twenty messages in both, and a large one in Kim's."""
    maildrops.add_accounts(database, JO, KIM)
    for number in range(20):
        maildrops.deposit(database, b"Subject: %d\r\n\r\n.\r\n" % number, JO, KIM)
    maildrops.deposit(database, LARGE, KIM)
    return database


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Where backups go; it is not there yet."""
    return Folder(tmp_path / "backups")


@pytest.fixture
def older(database: Database) -> Database:
    """A store with mail at the first revision."""
    maildrops.add_accounts(database, JO)
    for number in range(5):
        maildrops.deposit(database, b"Subject: %d\r\n\r\n" % number, JO)
    migrate.downgrade(database, lambda said: None, revision="0001")
    return database
