"""A maildrop as an administrator reads it."""

from __future__ import annotations

import pytest
from sqlalchemy import delete

from mailstack.errors import MessageGone, NotFound
from mailstack.mail.address import Mailbox
from mailstack.mail.spool import PART_OCTETS
from mailstack.store import accounts, browse
from mailstack.store.engine import Database
from mailstack.store.parts import content_id
from mailstack.store.tables import content
from tests.support import maildrops

JO = "jo@example.org"


@pytest.fixture
def jo(database: Database) -> int:
    maildrops.add_accounts(database, JO)
    with database.reading() as connection:
        return accounts.find_account(connection, Mailbox("jo", "example.org")).id


def test_entries_are_in_order_with_what_the_envelope_said(database: Database, jo: int) -> None:
    maildrops.deposit(database, b"1\r\n", JO)
    maildrops.deposit(database, b"22\r\n", JO, reverse_path="")
    with database.reading() as connection:
        one, two = browse.entries(connection, jo)
        assert (one.uid, one.reverse_path, one.octets) == (
            1,
            "eve@example.net",
            len(b"Return-Path: <eve@example.net>\r\n1\r\n"),
        )
        assert (two.uid, two.reverse_path) == (2, "")
        assert browse.find_entry(connection, jo, two.unique_id) == 2
        assert browse.span(connection, jo) == (one.delivered_at, two.delivered_at)
        with pytest.raises(NotFound, match="there is no message nonsense"):
            browse.find_entry(connection, jo, "nonsense")


def test_an_empty_maildrop_has_no_times(database: Database, jo: int) -> None:
    with database.reading() as connection:
        assert browse.span(connection, jo) == (None, None)
    assert list(browse.walk(database, jo)) == []


def test_a_walk_passes_every_page(database: Database, jo: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browse, "_PAGE", 2)
    for number in range(5):
        maildrops.deposit(database, b"%d\r\n" % number, JO)
    assert [each.uid for each in browse.walk(database, jo)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("octets", [0, 1, PART_OCTETS - 2, PART_OCTETS - 1, 3 * PART_OCTETS])
def test_the_octets_are_those_that_were_deposited(database: Database, jo: int, octets: int) -> None:
    body = b"x" * octets + b"\r\n"
    maildrops.deposit(database, body, JO)
    assert b"".join(browse.octets_of(database, jo, 1)) == b"Return-Path: <eve@example.net>\r\n" + body


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_damaged_message_is_an_error_that_names_it(database: Database, jo: int, part: int) -> None:
    number = maildrops.deposit(database, b"x" * 2 * PART_OCTETS + b"\r\n", JO)
    with database.writing() as connection:
        connection.execute(delete(content).where(content.c.id == content_id(number, part)))
    with pytest.raises(MessageGone, match=f"message {number}"):
        list(browse.octets_of(database, jo, 1))
