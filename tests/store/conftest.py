"""Stores with accounts and mail that tests start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailstack.mail.address import Mailbox
from mailstack.store import accounts, domains, migrate
from mailstack.store.backups.folder import Folder
from mailstack.store.engine import Database
from tests.store.deposits import NAMES
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


@pytest.fixture
def people(database) -> dict[str, int]:
    """Three accounts, by name."""
    with database.writing() as connection:
        domains.add_domain(connection, "example.org")
        return {
            name: accounts.add_account(connection, Mailbox(name, "example.org"), password_hash="$none$").id
            for name in NAMES
        }
