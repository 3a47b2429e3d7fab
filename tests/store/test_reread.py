"""`database check` reads every octet, beside a running service, and notes what it finds."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, select, update

from mailstack.errors import MessageDamaged
from mailstack.mail.spool import PART_OCTETS
from mailstack.store import bulk, digests, fetching, migrate, removal
from mailstack.store.engine import Database
from mailstack.store.inspection import Inspection
from mailstack.store.parts import content_id
from mailstack.store.removal import Expunge
from mailstack.store.reread import reread
from mailstack.store.tables import content, entry, message
from tests.support import maildrops
from tests.support.contents import findings
from tests.support.fetched import whole

JO = "jo@example.org"
LARGE = b"Subject: large\r\n\r\n" + b"x" * 33 * PART_OCTETS + b"\r\n"


@pytest.fixture
def filled(database: Database) -> Database:
    maildrops.add_accounts(database, JO)
    for number in range(4):
        maildrops.deposit(database, b"Subject: %d\r\n\r\n" % number, JO)
    maildrops.deposit(database, LARGE, JO)
    return database


def test_a_changed_octet_is_found_noted_and_forgotten_once_it_is_right_again(filled: Database) -> None:
    said = ["message 2 is damaged: its content is not what was deposited"]
    maildrops.overwrite(filled, 2, b"Subject: X\r\n\r\n")
    assert findings(filled) == said
    maildrops.overwrite(filled, 2, b"Subject: 1\r\n\r\n")
    with filled.reading() as connection, pytest.raises(MessageDamaged):
        fetching.open_message(connection, 1, 2)  # as the note says, until somebody looks again
    assert findings(filled) == []
    with filled.reading() as connection:
        assert whole(connection, 1, 2).endswith(b"Subject: 1\r\n\r\n")


def test_messages_from_before_digests_get_theirs(filled: Database) -> None:
    with filled.writing() as connection:
        connection.execute(update(message).values(digests=None))
    assert findings(filled) == []
    with filled.reading() as connection:
        known = connection.execute(select(message.c.digests).order_by(message.c.id)).scalars().all()
    assert known[0] == digests.of_part(b"Subject: 0\r\n\r\n")
    assert len(known[4]) == 34 * digests.DIGEST_OCTETS


def test_lines_without_crlf_are_found(filled: Database) -> None:
    octets = b"Subject: 1\n\r\n"
    maildrops.overwrite(filled, 2, octets)
    with filled.writing() as connection:
        connection.execute(update(message).where(message.c.id == 2).values(digests=None, octets=len(octets)))
        connection.execute(update(entry).where(entry.c.uid == 2).values(octets=len(octets) + 32))
    assert "message 2 has lines that do not end with CRLF" in findings(filled)


def test_what_is_deleted_meanwhile_is_not_called_damaged(
    filled: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "GROUP_MESSAGES", 1)
    monkeypatch.setattr(bulk, "PARTS_A_STEP", 8)
    reading, count = filled.reading, iter(range(1000))

    def interrupted():  # type: ignore[no-untyped-def]
        if next(count) == 7:
            with filled.writing() as connection:
                removal.expunge(connection, [Expunge(1, [5])])
        return reading()

    monkeypatch.setattr(filled, "reading", interrupted)
    told = [each for part in reread(filled, 4, 5) for each in part.damaged]
    assert told == []


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ((b"a\r", b"\nb\r\n"), None),
        ((b"a\r", b"b\r\n"), "lines"),
        ((b"a\n",), "lines"),
        ((b"a\r\n", b"b\r"), "lines"),
        ((b"a",), "lines"),
        ((), None),
    ],
)
def test_a_line_end_may_be_cut_in_two(parts: tuple[bytes, ...], fault: str | None) -> None:
    inspection = Inspection(1, sum(map(len, parts)), None)
    for number, octets in enumerate(parts, content_id(1)):
        inspection.see(number, octets)
    assert inspection.fault is None if fault is None else fault in str(inspection.fault)


def test_a_column_too_many_is_told(filled: Database) -> None:
    with filled.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE entry ADD COLUMN colour TEXT")
    (said,) = migrate.differences(filled)
    assert "remove column entry colour" in said


def test_content_beyond_the_last_part_is_damage_too(filled: Database) -> None:
    with filled.writing() as connection:
        connection.execute(insert(content).values(id=content_id(1, 1), octets=b"more\r\n"))
    assert findings(filled) == ["message 1 is damaged: of its 14 octets 20 are there"]
