"""`database check`: what it finds, what it mends, and what it leaves alone."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, delete, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from mailstack.mail.address import Mailbox
from mailstack.mail.spool import PART_OCTETS
from mailstack.store import accounts, browse, integrity
from mailstack.store.engine import Database
from mailstack.store.parts import content_id
from mailstack.store.tables import account, content, entry, message
from tests.support import maildrops
from tests.support.contents import findings

JO, KIM = "jo@example.org", "kim@example.org"


@pytest.fixture
def filled(database: Database) -> Database:
    """Two accounts, three messages: one for each of them, one of three parts for both."""
    maildrops.add_accounts(database, JO, KIM)
    maildrops.deposit(database, b"Subject: one\r\n\r\n1\r\n", JO)
    maildrops.deposit(database, b"Subject: two\r\n\r\n2\r\n", KIM)
    maildrops.deposit(database, b"x" * (2 * PART_OCTETS + 5) + b"\r\n", JO, KIM)
    return database


def without_foreign_keys(connection: Connection) -> None:
    """As a database is that somebody edited by hand."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET session_replication_role = replica"))


def test_a_sound_store_has_no_findings(filled: Database) -> None:
    assert findings(filled) == []
    *_, last = integrity.check(filled)
    assert last.progress.done == last.progress.total


def test_an_empty_store_has_no_findings(database: Database) -> None:
    assert findings(database) == []


@pytest.mark.parametrize(
    ("column", "wrong", "said"),
    [
        (account.c.messages, 7, "jo@example.org: the counter says 7 messages, the maildrop has 2"),
        (account.c.octets, 7, "jo@example.org: the counter says 7 octets, the messages have {octets}"),
        (account.c.next_uid, 2, "jo@example.org: the next uid is 2, but 2 was given out already"),
    ],
)
def test_a_wrong_counter_is_found_and_mended(filled: Database, column: object, wrong: int, said: str) -> None:
    with filled.writing() as connection:
        before = accounts.find_account(connection, Mailbox("jo", "example.org"))
        connection.execute(update(account).where(account.c.id == before.id).values({column: wrong}))
    said = said.format(octets=before.octets)
    assert findings(filled) == [said]
    assert findings(filled, repair=True) == [said]
    assert findings(filled) == []
    with filled.reading() as connection:
        assert accounts.find_account(connection, Mailbox("jo", "example.org")) == before


def test_a_unique_id_that_stands_for_two_messages_is_found(filled: Database) -> None:  # RFC 1939 §7
    with filled.writing() as connection:
        second = connection.execute(
            select(entry.c.unique_id).where(entry.c.account_id == 1, entry.c.uid == 2)
        )
        connection.execute(
            update(entry)
            .where(entry.c.account_id == 1, entry.c.uid == 1)
            .values(unique_id=(unique_id := second.scalar_one()))
        )
    assert findings(filled) == [f"jo@example.org: the unique-id {unique_id} stands for 2 messages"]


def test_a_foreign_unique_id_can_be_there_once(filled: Database) -> None:
    with pytest.raises(IntegrityError), filled.writing() as connection:
        connection.execute(update(entry).where(entry.c.account_id == 1).values(unique_id="000000016b0388a7"))


def test_the_next_uid_may_be_ahead(filled: Database) -> None:
    with filled.writing() as connection:
        connection.execute(update(account).values(next_uid=100))
    assert findings(filled) == []


def test_a_message_in_no_maildrop_is_removed_with_its_content(filled: Database) -> None:
    with filled.writing() as connection:
        connection.execute(delete(entry).where(entry.c.message_id == 3))
        connection.execute(update(account).values(messages=1, octets=_octets(connection)))
    assert findings(filled, repair=True) == ["message 3 is in no maildrop"]
    assert findings(filled) == []
    with filled.writing() as connection:
        maildrops.sweep(connection)
        assert connection.execute(select(message.c.id).order_by(message.c.id)).scalars().all() == [1, 2]
        ids = connection.execute(select(content.c.id).order_by(content.c.id)).scalars().all()
        assert ids == [content_id(1), content_id(2)]


def _octets(connection: Connection) -> int:
    """Both small messages have the same octets."""
    return connection.execute(select(entry.c.octets).where(entry.c.message_id == 1)).scalar_one()


def test_content_of_no_message_is_removed(filled: Database) -> None:
    with filled.writing() as connection:
        connection.execute(insert(content).values(id=content_id(9, 1), octets=b"left"))
    assert findings(filled, repair=True) == ["content is left of message 9, which is not there"]
    assert findings(filled) == []


def test_an_entry_that_disagrees_with_its_message_is_mended_with_its_counter(filled: Database) -> None:
    with filled.writing() as connection:
        right = connection.execute(select(entry.c.octets).where(entry.c.message_id == 2)).scalar_one()
        connection.execute(update(entry).where(entry.c.message_id == 2).values(octets=entry.c.octets + 10))
        kim = accounts.find_account(connection, Mailbox("kim", "example.org"))
        connection.execute(update(account).where(account.c.id == kim.id).values(octets=account.c.octets + 10))
    said = f"account {kim.id}, uid 1: the entry says {right + 10} octets, the message has {right}"
    assert findings(filled) == [said]
    assert findings(filled, repair=True)[0] == said
    assert findings(filled) == []
    with filled.reading() as connection:
        assert accounts.find_account(connection, Mailbox("kim", "example.org")) == kim


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_message_that_lost_a_part_is_told_and_left_alone(filled: Database, part: int) -> None:
    with filled.writing() as connection:
        connection.execute(delete(content).where(content.c.id == content_id(3, part)))
    present = 7 + PART_OCTETS * 2 - (7 if part == 2 else PART_OCTETS)
    said = f"message 3 is damaged: of its {2 * PART_OCTETS + 7} octets {present} are there"
    assert findings(filled, repair=True) == [said]
    assert findings(filled) == [said]
    assert [f.mendable for step in integrity.check(filled) for f in step.findings] == [False]


def test_an_entry_whose_message_is_gone_is_removed(filled: Database) -> None:
    if filled.is_sqlite:
        with filled.engine.connect() as connection:
            connection.connection.cursor().execute("PRAGMA foreign_keys=OFF")
            connection.execute(delete(message).where(message.c.id == 1))
            connection.execute(delete(content).where(content.c.id == content_id(1)))
            connection.commit()
            connection.connection.cursor().execute("PRAGMA foreign_keys=ON")
    else:
        with filled.writing() as connection:
            without_foreign_keys(connection)
            connection.execute(delete(message).where(message.c.id == 1))
            connection.execute(delete(content).where(content.c.id == content_id(1)))
            connection.execute(text("SET session_replication_role = origin"))
    assert findings(filled, repair=True) == ["jo@example.org: the message of uid 1 is gone"]
    assert findings(filled) == []
    with filled.reading() as connection:
        jo = accounts.find_account(connection, Mailbox("jo", "example.org"))
        assert jo.messages == 1
        assert [each.uid for each in browse.entries(connection, jo.id)] == [2]


def test_looking_changes_nothing(filled: Database) -> None:
    with filled.writing() as connection:
        connection.execute(update(account).values(messages=7))
    assert len(findings(filled)) == 2
    assert len(findings(filled)) == 2
