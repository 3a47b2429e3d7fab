"""A store from which mail is removed, and what is noted of it until its content goes, too."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, func, select

from mailstack.mail.spool import PART_OCTETS
from mailstack.store import accounts, leftovers, removal
from mailstack.store.engine import Database
from mailstack.store.leftovers import Slice
from mailstack.store.removal import Expunge
from mailstack.store.tables import content, leftover, message
from tests.support import maildrops

JO, KIM = "jo@example.org", "kim@example.org"
JO_ID, KIM_ID = 1, 2
ALL = Slice(messages=1000, octets=1 << 30)


@pytest.fixture
def filled(database: Database) -> Database:
    """Messages 1 to 6 in Jo's maildrop, 1 to 3 of them in Kim's, too; 6 has three parts."""
    maildrops.add_accounts(database, JO, KIM)
    for number in range(1, 4):
        maildrops.deposit(database, b"Subject: %d\r\n\r\n" % number, JO, KIM)
    for number in (4, 5):
        maildrops.deposit(database, b"Subject: %d\r\n\r\n" % number, JO)
    maildrops.deposit(database, b"x" * 2 * PART_OCTETS + b"\r\n", JO)
    return database


def expunge(database: Database, account_id: int, *uids: int, removed_by: str | None = None) -> None:
    with database.writing() as connection:
        removal.expunge(connection, [Expunge(account_id, uids, removed_by)])


def swept(database: Database, job: Slice = ALL) -> int:
    """One slice, in a transaction of its own; how many notes it has done."""
    before = len(noted(database))
    with database.writing() as connection:
        (more,) = leftovers.sweep(connection, [job])
    left = len(noted(database))
    assert more or not left
    return before - left


def numbers(database: Database) -> list[int]:
    """The messages that are there."""
    with database.reading() as connection:
        return list(connection.execute(select(message.c.id).order_by(message.c.id)).scalars())


def noted(database: Database) -> list[int]:
    """The messages that are noted, in order."""
    with database.reading() as connection:
        return list(connection.execute(select(leftover.c.message_id).order_by(leftover.c.id)).scalars())


def octets(database: Database) -> int:
    """What all maildrops hold."""
    with database.reading() as connection:
        return int(connection.execute(select(func.sum(accounts.account.c.octets))).scalar_one())


def parts(connection: Connection) -> int:
    return int(connection.execute(select(func.count()).select_from(content)).scalar_one())
