"""What happened is remembered without costing what happens anything, and for as long as one wants."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from mailstack.cli import trace_words
from mailstack.delivery import Delivery
from mailstack.errors import NotFound
from mailstack.mail.address import parse_mailbox
from mailstack.mail.envelope import UNBOUNDED, Envelope
from mailstack.mail.trace import Arrival
from mailstack.store import accounts, domains, events, housekeeping, runs, story
from mailstack.store.clock import now
from mailstack.store.engine import Database
from mailstack.store.events import Kind
from mailstack.store.housekeeping import Rules
from mailstack.store.limits import Limits
from mailstack.store.runs import Runs
from mailstack.store.tables import account, event
from tests.support import maildrops
from tests.support.stores import opened

DAY = 86_400


def counted(database: Database) -> int:
    with database.reading() as connection:
        return int(connection.execute(select(func.count()).select_from(event)).scalar_one())


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), unique=True))
def test_runs_name_the_numbers_that_they_were_made_of(numbers: list[int]) -> None:
    text = str(Runs.of(numbers))
    assert {number for number in range(1, 61) if runs.among(number, text)} == set(numbers)
    assert runs.count(text) == len(numbers)


@given(st.lists(st.integers(1, 30)), st.sets(st.integers(1, 30)))
def test_what_is_left_of_runs_is_all_but_the_others(numbers: list[int], others: set[int]) -> None:
    left = Runs.of(numbers).without(Runs.of(sorted(others)))
    assert {n for first, last in left for n in range(first, last + 1)} == set(numbers) - others


def test_runs_have_a_bound() -> None:
    few = Runs(2)
    few.extend([1, 3, 4, 9, 5])
    assert str(few) == "1,3-5"


def test_a_walk_through_a_maildrop_is_one_run() -> None:
    assert str(Runs.of([*range(1, 20_001), 20_005])) == "1-20000,20005"


async def test_events_are_written_together_and_all_of_them_at_the_end(
    database: Database, tmp_path: Path
) -> None:
    async with opened(database, tmp_path) as store:
        for number in range(1000):
            store.journal.note(f"session{number}", Kind.SESSION, ["jo@example.org"], account_id=1)
        assert counted(database) == 0
    assert counted(database) == 1000


async def test_nothing_is_remembered_where_nothing_is_to_be(database: Database, tmp_path: Path) -> None:
    async with opened(database, tmp_path, keep_events=False) as store:
        store.journal.note("session", Kind.SESSION, ["jo@example.org"], account_id=1)
    assert counted(database) == 0


async def test_what_is_too_much_for_the_memory_is_lost_and_counted(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(events, "_AT_MOST", 3)
    database = Database(sqlite_url)
    async with opened(database, tmp_path) as store:
        for number in range(5):
            store.journal.note(f"session{number}", Kind.SESSION, [], account_id=1)
    assert counted(database) == 3
    database.dispose()
    # On a busy machine asyncio, too, has something to say.
    lost = [record for record in caplog.records if record.getMessage() == "events lost"]
    assert [record.fields for record in lost] == [{"number": 2}]


async def test_octets_that_are_too_many_for_the_memory_are_lost_too(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(events, "_OCTETS", 2500)
    database = Database(sqlite_url)
    async with opened(database, tmp_path) as store:
        with database.writing() as connection:
            connection.exec_driver_sql("ALTER TABLE event RENAME TO elsewhere")
        for _ in range(3):  # what waits while the database takes none is no more than before
            for number in range(5):
                store.journal.note(f"session{number}", Kind.SESSION, [], account_id=1, uids="1," * 500)
            with pytest.raises(Exception, match="event"):
                await store.journal.flush()
        with database.writing() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO event")
    assert counted(database) == 3
    database.dispose()
    lost = [record for record in caplog.records if record.getMessage() == "events lost"]
    assert [record.fields["number"] for record in lost] == [2, 5, 5]


async def test_a_refused_message_names_a_hundred_of_its_recipients_and_counts_the_others(
    sqlite_url: str, tmp_path: Path
) -> None:
    database = Database(sqlite_url)
    envelope = Envelope(parse_mailbox("ann@example.net"))
    for number in range(1000):
        envelope.add(parse_mailbox(f"jo+{number}@example.org"), {1: UNBOUNDED})
    async with opened(database, tmp_path) as store:
        delivery = Delivery(store, hostname="mx", spool_dir=tmp_path, max_message_octets=1000)
        intake = delivery.begin(envelope, Arrival("mx", "192.0.2.1", "ESMTP", None), "abcdefgh")
        delivery.note_failed(intake, "452 4.3.1 too much mail is waiting, try again")
        intake.close()
    with database.reading() as connection:
        found = story.find(connection, "abcdefgh", 0)
        row = connection.execute(select(event)).one()
    (told,) = (each.told for each in found.events)
    assert (len(told["forward_paths"]), told["number"]) == (100, 1000)
    assert len(row.about) + len(row.told) < 10_000
    assert "jo+4@example.org and 995 more: 452 4.3.1" in "\n".join(trace_words.lines(found))
    database.dispose()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"Subject: one\r\nMessage-ID: <1@example.net>\r\n\r\nhello\r\n", "<1@example.net>"),
        (b"Message-ID: <1@example.net>\r\n\r\n", "<1@example.net>"),
        (b"Subject: one\r\n\r\nMessage-ID: <quoted@example.net>\r\n", None),
        (b"Subject: one\r\n\r\n> you said\r\nMessage-ID: <quoted@example.net>\r\n", None),
    ],
    ids=["in the header", "on top", "the body begins with one", "a body"],
)
async def test_an_accepted_message_is_known_by_the_id_of_its_own_header(
    database: Database, tmp_path: Path, content: bytes, expected: str | None
) -> None:
    path = parse_mailbox("jones@example.org")
    with database.writing() as connection:
        domains.add_domain(connection, path.domain)
        accounts.add_account(connection, path, password_hash="")
        account_id = accounts.find_account(connection, path).id
    envelope = Envelope(path)
    envelope.add(path, {account_id: UNBOUNDED})
    async with opened(database, tmp_path) as store:
        delivery = Delivery(store, hostname="mx", spool_dir=tmp_path, max_message_octets=1000)
        intake = delivery.begin(envelope, Arrival("mx", "192.0.2.1", "ESMTP", None), "abcdefgh")
        intake.write(content)
        await delivery.deliver(intake)
        intake.close()
    with database.reading() as connection:
        told = json.loads(connection.execute(select(event.c.told)).scalar_one())
    assert told.get("message_id") == expected


async def test_what_the_database_refuses_is_written_later(database: Database, tmp_path: Path) -> None:
    async with opened(database, tmp_path) as store:
        store.journal.note("session", Kind.SESSION, [], account_id=1)
        with database.writing() as connection:
            connection.exec_driver_sql("ALTER TABLE event RENAME TO elsewhere")
        with pytest.raises(Exception, match="event"):
            await store.journal.flush()
        with database.writing() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO event")
        await store.journal.flush()
    assert counted(database) == 1


async def test_housekeeping_forgets_old_events_in_slices(database: Database, tmp_path: Path) -> None:
    old = now() - 31 * DAY * 1_000_000
    rows = [events.Row.of(old + n, f"old{n}", Kind.SESSION, [], {"account_id": 1}) for n in range(1200)]
    rows.append(events.Row.of(now(), "new", Kind.SESSION, [], {"account_id": 1}))
    with database.writing() as connection:
        events.write(connection, [rows])
    rules = Rules(default=Limits(), undo_seconds=0, undo_deleted_seconds=0, trace_seconds=30 * DAY)
    async with opened(database, tmp_path) as store:
        assert (await housekeeping.run(store, rules)).events == 1200
    assert counted(database) == 1


async def test_two_events_never_have_the_same_time(database: Database, tmp_path: Path) -> None:
    async with opened(database, tmp_path) as store:
        rows = [store.journal.row("same", Kind.SESSION, [], {}) for _ in range(500)]
        await asyncio.sleep(0)
    assert len({row.at for row in rows}) == 500
    assert all(json.loads(row.told) == {} for row in rows)


@pytest.mark.parametrize("what", ["jo", "a b", "", "abcdefgh-x", "0x1.2"])
def test_what_is_neither_address_nor_id_is_refused_in_words(database: Database, what: str) -> None:
    with database.reading() as connection, pytest.raises(Exception, match="no address"):
        story.find(connection, what, 0)


@pytest.mark.parametrize("uid", ["0", "2", "01", "99999999999999999999"])
@pytest.mark.parametrize("validity", ["{}", "1", "99999999999999999999", "0{}"])
def test_of_a_unique_id_that_was_never_given_nothing_is_known(
    database: Database, validity: str, uid: str
) -> None:
    maildrops.add_accounts(database, "jo@example.org")
    maildrops.deposit(database, b"x\r\n", "jo@example.org")
    with database.reading() as connection:
        given = connection.execute(select(account.c.uid_validity)).scalar_one()
        [where] = story.find(connection, f"{given}.1", 0).now
        assert where.state == "there"
        with pytest.raises(NotFound, match="nothing is known"):
            story.find(connection, f"{validity.format(given)}.{uid}", 0)


def test_percent_and_underscore_mean_themselves(database: Database) -> None:
    names = ("a_b@example.org", "axb@example.org", "a%b@example.org")
    with database.writing() as connection:
        rows = [events.Row.of(n, str(n), Kind.REFUSED, [name], {}) for n, name in enumerate(names, 1)]
        events.write(connection, [rows])
    with database.reading() as connection:
        for number, name in enumerate(names, 1):
            assert [each.name for each in story.find(connection, name, 0).events] == [str(number)]
