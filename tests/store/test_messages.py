"""Messages in maildrops: quotas, numbers, shared content, pages; on both databases."""

from __future__ import annotations

import pickle
from array import array

import pytest
from sqlalchemy import Connection, delete, func, select, text

from mailstack.errors import AccountsRemoved, MaildropFilled, MessageGone, NoSuchMailbox
from mailstack.mail.address import parse_mailbox
from mailstack.mail.spool import PART_OCTETS
from mailstack.store import accounts, blobs, fetching, listing, messages, removal
from mailstack.store.messages import Deposit, Recipient
from mailstack.store.parts import message_of
from mailstack.store.removal import Expunge
from mailstack.store.tables import content, entry, message
from tests.store.deposits import NAMES, a_deposit, expunged, spooled
from tests.support import maildrops
from tests.support.fetched import whole


def rows(connection: Connection) -> tuple[int, int, int]:
    """How many messages, parts and entries there are."""
    counts = [
        connection.execute(select(func.count()).select_from(t)).scalar_one()
        for t in (message, content, entry)
    ]
    return counts[0], counts[1], counts[2]


# -- a quota -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [(1, None), (None, 1), (1, 1)])
def test_of_many_at_once_a_maildrop_takes_until_it_is_full(database, people, bound):
    with spooled(b"one\r\n") as (spool,):
        anna = a_deposit(spool, people["anna"])
        (recipient,) = anna.recipients
        bounded = anna._replace(recipients=(recipient._replace(bound=bound),))
        with database.writing() as connection:
            taken, refused = messages.deposit(connection, [bounded, bounded])
            assert (type(taken), type(refused)) == (int, MaildropFilled)
            assert rows(connection) == (1, 1, 1)
        with database.writing() as connection:
            (refused,) = messages.deposit(connection, [bounded])
            assert isinstance(refused, MaildropFilled)
            assert rows(connection) == (1, 1, 1)
        with database.writing() as connection:  # a warning, an import: what no quota is for
            messages.deposit(connection, [anna])
            assert rows(connection) == (2, 2, 2)


# -- one by one --------------------------------------------------------------------------------------


def test_an_account_removed_since_rcpt_is_told_and_of_its_message_nothing_is_stored(database, people):
    with spooled(b"Subject: x\r\n\r\nhello\r\n") as (spool,), database.writing() as connection:
        (refusal,) = messages.deposit(connection, [a_deposit(spool, people["anna"], 998, 999)])
        assert isinstance(refusal, AccountsRemoved)
        assert refusal.account_ids == {998, 999}
        told = pickle.loads(pickle.dumps(refusal))  # as from the process that writes
        assert (str(told), told.account_ids) == (str(refusal), {998, 999})
        assert rows(connection) == (0, 0, 0)


def test_each_message_is_told_of_the_accounts_that_it_was_for(database, people):
    with (
        spooled(b"A: a\r\n", b"B: b\r\n", b"C: c\r\n", b"D: d\r\n") as spools,
        database.writing() as connection,
    ):
        to = ([998], [people["anna"]], [people["anna"], 999], [people["anna"], people["ben"]])
        jobs = [a_deposit(spool, *each, prefix=b"") for spool, each in zip(spools, to, strict=True)]
        first, second, third, fourth = messages.deposit(connection, jobs)
        assert (first.account_ids, third.account_ids) == ({998}, {999})
        assert second < fourth
        assert rows(connection) == (2, 2, 3)
        assert [whole(connection, people["anna"], uid) for uid in (1, 2)] == [b"B: b\r\n", b"D: d\r\n"]
        assert messages.snapshot(connection, people["anna"])[:3] == (2, 12, 2)


@pytest.mark.parametrize(
    "last_opened", [blobs.LAST_OPENED, 2**31 - 1], ids=["this driver", "a driver before 3.11.4"]
)
def test_large_content_is_kept_behind_the_messages_whose_parts_have_small_numbers(
    database, people, monkeypatch, last_opened
):
    octets = b"Subject: x\r\n\r\n" + b"0123456789abcde\n" * 40_000
    monkeypatch.setattr(blobs, "LAST_OPENED", last_opened)
    with database.writing() as connection:
        last = message_of(2**31) - 2  # one message is before the border, the others behind it
        start = "INSERT INTO sqlite_sequence VALUES ('message', {})"
        if connection.dialect.name != "sqlite":
            start = "SELECT setval('message_id_seq', {})"
        connection.execute(text(start.format(last)))
    for number in (1, 2, 3):
        with spooled(octets) as (spool,), database.writing() as connection:
            (message_id,) = messages.deposit(connection, [a_deposit(spool, people["anna"], prefix=b"")])
        assert message_id == last + number
        with database.reading() as connection:
            assert whole(connection, people["anna"], number) == octets


def test_one_message_for_several_is_stored_once(database, people):
    with spooled(b"Subject: x\r\n\r\nhello\r\n") as (spool,), database.writing() as connection:
        job = Deposit(
            "test-1",
            "eve@example.net",
            spool,
            dotted=True,
            recipients=tuple(Recipient(people[n], f"Delivered-To: {n}\r\n".encode()) for n in NAMES),
            at=5,
        )
        messages.deposit(connection, [job])
    with database.reading() as connection:
        assert rows(connection) == (1, 1, 3)
        for name in NAMES:
            prefix = f"Delivered-To: {name}\r\n".encode()
            assert whole(connection, people[name], 1) == prefix + b"Subject: x\r\n\r\nhello\r\n"
            assert fetching.open_message(connection, people[name], 1).dotted is True


def test_content_of_any_size_comes_back(database, people):
    edge = PART_OCTETS
    for uid, octets in enumerate([0, 1, edge - 1, edge, edge + 1, 2 * edge, 5 * edge + 7], 1):
        wanted = (bytes(n * 7 % 251 for n in range(256)) * (octets // 256 + 1))[:octets]
        with spooled(wanted) as (spool,), database.writing() as connection:
            parts_before = rows(connection)[1]
            messages.deposit(connection, [a_deposit(spool, people["anna"])])
            assert whole(connection, people["anna"], uid) == b"Return-Path: <>\r\n" + wanted
            assert rows(connection)[1] == parts_before + -(-octets // PART_OCTETS)


def test_a_batch_numbers_each_maildrop_in_its_order(database, people):
    contents = [b"%d\r\n" % n for n in range(6)]
    with spooled(*contents) as spools, database.writing() as connection:
        anna, ben = people["anna"], people["ben"]
        to = [(anna,), (ben, anna), (ben,), (anna,), (anna, ben), (ben,)]
        jobs = [a_deposit(spool, *ids, prefix=b"") for spool, ids in zip(spools, to, strict=True)]
        ids = messages.deposit(connection, jobs)
        assert ids == sorted(set(ids))
    with database.reading() as connection:
        assert [whole(connection, anna, uid) for uid in (1, 2, 3, 4)] == [contents[n] for n in (0, 1, 3, 4)]
        assert [whole(connection, ben, uid) for uid in (1, 2, 3, 4)] == [contents[n] for n in (1, 2, 4, 5)]


def test_a_uid_is_never_given_twice(database, people):
    anna = people["anna"]
    with spooled(b"x\r\n") as (spool,):
        for expected in (1, 2, 3):
            with database.writing() as connection:
                messages.deposit(connection, [a_deposit(spool, anna)])
                last_uid = messages.snapshot(connection, anna).last_uid
                assert last_uid == expected
                unique_id = list(listing.unique_ids(connection, anna, last_uid))
                validity = accounts.find_account(connection, parse_mailbox("anna@example.org")).uid_validity
                assert unique_id == [f"{validity}.{expected}"]
                assert expunged(connection, [Expunge(anna, [expected])]) == [1]
    with database.reading() as connection:
        assert messages.snapshot(connection, anna)[:3] == (0, 0, 3)


def test_a_message_id_is_never_given_twice(database, people):
    anna, seen = people["anna"], []
    with spooled(b"x\r\n") as (spool,):
        for uid in (1, 2, 3):
            with database.writing() as connection:
                seen += messages.deposit(connection, [a_deposit(spool, anna)])
                removal.expunge(connection, [Expunge(anna, [uid])])
    assert len(set(seen)) == 3


def test_a_message_lives_until_its_last_reader_removes_it(database, people):
    with spooled(b"x" * (PART_OCTETS + 1)) as (spool,), database.writing() as connection:
        messages.deposit(connection, [a_deposit(spool, *people.values())])
    for left, name in ((2, "ben"), (1, "anna")):
        with database.writing() as connection:
            removal.expunge(connection, [Expunge(people[name], [1])])
            maildrops.sweep(connection)
            assert rows(connection) == (1, 2, left)
    with database.writing() as connection:
        removal.expunge(connection, [Expunge(people["cleo"], [1])])
        assert rows(connection) == (1, 2, 0)
        maildrops.sweep(connection)
        assert rows(connection) == (0, 0, 0)


def test_two_that_remove_a_shared_message_at_once_leave_nothing(database, people):
    with spooled(b"x") as (spool,), database.writing() as connection:
        messages.deposit(connection, [a_deposit(spool, *people.values())])
    with database.writing() as connection:
        jobs = [Expunge(account_id, [1]) for account_id in people.values()]
        assert expunged(connection, jobs) == [1, 1, 1]
        maildrops.sweep(connection)
        assert rows(connection) == (0, 0, 0)


def test_expunge_of_what_is_gone_changes_nothing(database, people):
    anna = people["anna"]
    with spooled(b"x\r\n") as (spool,), database.writing() as connection:
        messages.deposit(connection, [a_deposit(spool, anna)])
        assert expunged(connection, [Expunge(anna, [7, 8]), Expunge(people["ben"], [1])]) == [0, 0]
        assert expunged(connection, [Expunge(anna, [1, 7])]) == [1]
        assert expunged(connection, [Expunge(anna, [1])]) == [0]
        assert messages.snapshot(connection, anna)[:3] == (0, 0, 1)


def test_a_maildrop_of_thousands(database, people):
    anna = people["anna"]
    with spooled(b"x\r\n") as (spool,), database.writing() as connection:
        messages.deposit(connection, [a_deposit(spool, anna, people["ben"]) for _ in range(1200)])
        assert messages.snapshot(connection, anna)[:3] == (1200, 1200 * 20, 1200)
        removed = list(range(1, 1200, 2))
        assert expunged(connection, [Expunge(anna, removed)]) == [600]
        found = listing.listing(connection, anna, 1200)
        assert list(found.uids) == list(range(2, 1201, 2))
        assert set(found.octets) == {20}
        maildrops.sweep(connection)
        assert rows(connection) == (1200, 1200, 1800)
        removal.expunge(connection, [Expunge(people["ben"], list(range(1, 1201)))])
        maildrops.sweep(connection)
        assert rows(connection) == (600, 600, 600)


def test_a_listing_ends_where_the_session_began(database, people):
    anna = people["anna"]
    with spooled(b"x\r\n") as (spool,), database.writing() as connection:
        messages.deposit(connection, [a_deposit(spool, anna) for _ in range(3)])
        snapshot = messages.snapshot(connection, anna)
        messages.deposit(connection, [a_deposit(spool, anna)])
        assert list(listing.listing(connection, anna, snapshot.last_uid).uids) == [1, 2, 3]
        assert len(listing.unique_ids(connection, anna, snapshot.last_uid)) == 3


def test_a_maildrop_has_pages_that_are_full_but_for_the_last(database, people):
    anna, ben = people["anna"], people["ben"]
    with spooled(b"x\r\n") as (spool,), database.writing() as connection:
        for _ in range(9):
            messages.deposit(connection, [a_deposit(spool, anna, ben) for _ in range(1000)])
        removal.expunge(connection, [Expunge(anna, list(range(1, 1000, 2)))])
    with database.reading() as connection:
        for account_id, last_uid in ((anna, 9000), (anna, 8500), (anna, 8499), (ben, 8000), (ben, 1)):
            expected = listing.listing(connection, account_id, last_uid)
            firsts, entries = listing.layout(connection, account_id, last_uid)
            assert list(firsts) == list(expected.uids[:: listing.PAGE_ENTRIES])
            assert entries == len(expected.uids)
            uids, octets, unique_ids = [], [], []
            for first, behind in zip(firsts, [*firsts[1:], last_uid + 1], strict=True):
                page = listing.listing(connection, account_id, behind - 1, first_uid=first)
                uids += page.uids
                octets += page.octets
                unique_ids += listing.unique_ids(connection, account_id, behind - 1, first_uid=first)
            assert (uids, octets) == (list(expected.uids), list(expected.octets))
            assert unique_ids == list(listing.unique_ids(connection, account_id, last_uid))
        assert listing.layout(connection, people["cleo"], 100) == (array("q"), 0)


def test_what_is_not_there_is_said_so(database, people):
    with database.reading() as connection:
        with pytest.raises(MessageGone):
            fetching.open_message(connection, people["anna"], 1)
        octets = PART_OCTETS + 9
        with pytest.raises(MessageGone):
            fetching.step(connection, fetching.Opened(1, 1, octets, octets, False, (), 0, None), 1)
        with pytest.raises(NoSuchMailbox):
            messages.snapshot(connection, 4711)
        assert listing.listing(connection, people["anna"], 100) == listing.listing(connection, 4711, 100)


def test_a_message_that_lost_its_content_is_never_shown_in_part(database, people):
    with spooled(b"x" * (PART_OCTETS + 1)) as (spool,), database.writing() as connection:
        messages.deposit(connection, [a_deposit(spool, people["anna"])])
        connection.execute(delete(content))
        with pytest.raises(MessageGone):
            fetching.open_message(connection, people["anna"], 1)
