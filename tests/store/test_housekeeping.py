"""Old mail goes by itself, never from under a session, and can be brought back for a while."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import pytest
from sqlalchemy import insert, select, update

from mailstack.errors import MaildropInUse, NotFound
from mailstack.mail.address import Mailbox
from mailstack.store import accounts, browse, facts, fullness, housekeeping, limits, retention, space, undo
from mailstack.store.clock import now
from mailstack.store.engine import Database
from mailstack.store.housekeeping import Report, Rules
from mailstack.store.limits import Limits
from mailstack.store.parts import content_id
from mailstack.store.retention import Doomed, Read
from mailstack.store.runs import Runs
from mailstack.store.store import Store
from mailstack.store.tables import UNLIMITED, account, content, entry, message
from tests.support import maildrops
from tests.support.contents import findings
from tests.support.fetched import whole
from tests.support.stores import opened

JO, KIM = "jo@example.org", "kim@example.org"
JO_ID, KIM_ID = 1, 2
DAY = 86_400
RULES = Rules(default=Limits(keep_seconds=30 * DAY), undo_seconds=7 * DAY, undo_deleted_seconds=0)


@pytest.fixture
def filled(database: Database) -> Database:
    """Two accounts with five messages each, 50, 40, 30, 20 and 10 days old."""
    maildrops.add_accounts(database, JO, KIM)
    for number in range(5):
        maildrops.deposit(database, b"Subject: %d\r\n\r\n" % number, JO, KIM)
    with database.writing() as connection:
        for number in range(5):
            age = (50 - 10 * number) * DAY * 1_000_000
            mine = entry.c.uid == number + 1
            connection.execute(update(entry).where(mine).values(delivered_at=now() - age))
    return database


async def keep_house(database: Database, tmp_path: Path, rules: Rules = RULES) -> Report:
    async with opened(database, tmp_path) as store:
        return await housekeeping.run(store, rules)


async def expunge(store: Store, account_id: int, *expunged: int) -> None:
    lock = await store.lock_maildrop(account_id, holder="a session")
    await store.expunge(account_id, expunged, lock=lock)
    await lock.released()


def uids(database: Database, account_id: int = JO_ID) -> list[int]:
    return [each.uid for each in browse.walk(database, account_id)]


async def test_mail_goes_when_it_is_old_enough(filled: Database, tmp_path: Path) -> None:
    report = await keep_house(filled, tmp_path)
    assert report.maildrops[JO_ID].messages == 3
    assert uids(filled) == uids(filled, KIM_ID) == [4, 5]
    assert findings(filled) == []
    assert (await keep_house(filled, tmp_path)).maildrops == {}


async def test_only_what_was_read_long_ago_goes(filled: Database, tmp_path: Path) -> None:
    with filled.writing() as connection:
        for uid, days in ((1, 1), (5, 8)):
            mine = (entry.c.account_id == JO_ID) & (entry.c.uid == uid)
            read_at = now() - days * DAY * 1_000_000
            connection.execute(update(entry).where(mine).values(first_read_at=read_at))
    rules = Rules(default=Limits(keep_read_seconds=7 * DAY), undo_seconds=0, undo_deleted_seconds=0)
    await keep_house(filled, tmp_path, rules)
    assert uids(filled) == [1, 2, 3, 4]
    assert uids(filled, KIM_ID) == [1, 2, 3, 4, 5]
    assert findings(filled) == []


@pytest.mark.parametrize(("most", "left"), [(0, []), (2, [4, 5]), (5, [1, 2, 3, 4, 5]), (9, [1, 2, 3, 4, 5])])
async def test_the_newest_stay(filled: Database, tmp_path: Path, most: int, left: list[int]) -> None:
    rules = Rules(default=Limits(keep_messages=most), undo_seconds=0, undo_deleted_seconds=0)
    await keep_house(filled, tmp_path, rules)
    assert uids(filled) == left
    assert findings(filled) == []


async def test_an_account_has_the_first_word_then_its_domain(filled: Database, tmp_path: Path) -> None:
    with filled.writing() as connection:
        limits.set_for_domain(connection, "example.org", keep_seconds=15 * DAY)
        limits.set_for_account(connection, KIM_ID, keep_seconds=UNLIMITED)
    with filled.reading() as connection:
        assert limits.of_account(connection, JO_ID, RULES.default).keep_seconds == 15 * DAY
        assert limits.of_account(connection, KIM_ID, RULES.default).keep_seconds is None
    await keep_house(filled, tmp_path)
    assert uids(filled) == [5]
    assert uids(filled, KIM_ID) == [1, 2, 3, 4, 5]


async def test_a_preview_tells_the_same_and_changes_nothing(filled: Database, tmp_path: Path) -> None:
    async with opened(filled, tmp_path) as store:
        told = await housekeeping.preview(store, RULES)
        assert uids(filled) == [1, 2, 3, 4, 5]
        assert (await housekeeping.run(store, RULES)).maildrops == told.maildrops
    assert told.maildrops[JO_ID] == Doomed(3, 3 * 46)


async def test_a_maildrop_in_use_is_passed_over(filled: Database, tmp_path: Path) -> None:
    async with opened(filled, tmp_path) as store:
        lock = await store.lock_maildrop(JO_ID, holder="a session")
        report = await housekeeping.run(store, RULES)
        assert report.in_use == [JO_ID]
        assert uids(filled) == [1, 2, 3, 4, 5]
        assert uids(filled, KIM_ID) == [4, 5]
        await lock.released()
        assert (await housekeeping.run(store, RULES)).in_use == []
    assert uids(filled) == [4, 5]


async def test_one_process_at_a_time_keeps_house(filled: Database, tmp_path: Path) -> None:
    other = Database(filled.url.render_as_string(hide_password=False))
    async with opened(filled, tmp_path) as store, opened(other, tmp_path) as second:
        lock = await store.lock_maildrop(housekeeping.HOUSEKEEPING, holder="another host")
        with pytest.raises(MaildropInUse):
            await housekeeping.run(second, RULES)
        lock.release()


async def test_what_went_can_be_brought_back_with_its_unique_id(filled: Database, tmp_path: Path) -> None:
    before = {each.uid: each.unique_id for each in browse.walk(filled, JO_ID)}
    await keep_house(filled, tmp_path)
    with filled.writing() as connection:
        assert [each.uid for each in undo.listed(connection, JO_ID)] == [1, 2, 3]
        assert accounts.find_account(connection, Mailbox("jo", "example.org")).messages == 2
        back = undo.bring_back(connection, JO_ID, [before[2]])
        assert [each.unique_id for each in back] == [before[2]]
        with pytest.raises(NotFound, match="no removed message"):
            undo.bring_back(connection, JO_ID, [before[2]])
    assert [each.unique_id for each in browse.walk(filled, JO_ID)] == [before[2], before[4], before[5]]
    assert b"".join(browse.octets_of(filled, JO_ID, 2)).endswith(b"Subject: 1\r\n\r\n")
    assert findings(filled) == []
    assert (await keep_house(filled, tmp_path)).maildrops == {}, "its age began anew"


async def test_what_nobody_wants_back_is_gone_after_the_window(filled: Database, tmp_path: Path) -> None:
    await keep_house(filled, tmp_path)
    assert (await keep_house(filled, tmp_path)).forgotten == 0
    short = Rules(default=RULES.default, undo_seconds=0, undo_deleted_seconds=0)
    assert (await keep_house(filled, tmp_path, short)).forgotten == 6
    with filled.reading() as connection:
        assert connection.execute(select(message.c.id).order_by(message.c.id)).scalars().all() == [4, 5]
    assert findings(filled) == []


async def test_what_a_client_deletes_can_be_kept_for_a_while_too(filled: Database, tmp_path: Path) -> None:
    async with opened(filled, tmp_path, keep_deleted=True) as store:
        await expunge(store, JO_ID, 1, 2)
    with filled.reading() as connection:
        assert [each.removed_by for each in undo.listed(connection, JO_ID)] == ["client", "client"]
    rules = Rules(default=Limits(), undo_seconds=0, undo_deleted_seconds=DAY)
    assert (await keep_house(filled, tmp_path, rules)).forgotten == 0
    with filled.writing() as connection:
        assert undo.counted(connection, JO_ID) == (2, 2 * 46)
        accounts.remove_account(connection, Mailbox("jo", "example.org"))
    assert findings(filled) == []


async def test_reading_is_noted_without_a_commit_of_its_own(filled: Database, tmp_path: Path) -> None:
    async with opened(filled, tmp_path) as store:
        store.reads.note(JO_ID, Runs.of([1, 2, 4]))
        await expunge(store, JO_ID, 2)
        assert _read(filled) == []
        await store.reads.flush()
        assert _read(filled) == [1, 4]
        first = _read_at(filled)
        store.reads.note(JO_ID, Runs.of([1]))
    assert _read_at(filled) == first


def test_what_many_have_read_is_one_statement(filled: Database) -> None:
    """Or the writer, and all mail that waits for it, stands still for more than a second."""
    jobs = [[Read(JO_ID, uid, uid, 1_000_000)] for uid in range(2, 1000)]
    calls = 0

    def count(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls  # of SQLAlchemy: what the driver does for each row is another matter
        calls += event == "call" and "sqlalchemy" in frame.f_code.co_filename

    with filled.writing() as connection:
        retention.mark_read(connection, jobs[:1])  # the first time of a process it is compiled
        sys.setprofile(count)
        try:
            retention.mark_read(connection, jobs)
        finally:
            sys.setprofile(None)
    assert calls < 100
    assert 1 not in _read(filled)
    assert _read(filled)[:2] == [2, 3]


def _read(database: Database) -> list[int]:
    with database.reading() as connection:
        wanted = select(entry.c.uid).where(entry.c.first_read_at.is_not(None))
        return list(connection.execute(wanted).scalars())


def _read_at(database: Database) -> int | None:
    with database.reading() as connection:
        return connection.execute(select(entry.c.first_read_at).where(entry.c.uid == 1).limit(1)).scalar()


async def test_litter_is_swept(filled: Database, tmp_path: Path) -> None:
    with filled.writing() as connection:
        connection.execute(insert(content).values(id=content_id(99), octets=b"left"))
    assert (await keep_house(filled, tmp_path)).orphans == 1
    assert findings(filled) == []


async def test_the_whole_store_is_looked_through_once_a_day(filled: Database, tmp_path: Path) -> None:
    assert (await keep_house(filled, tmp_path)).swept
    assert not (await keep_house(filled, tmp_path)).swept
    for hours, swept in ((23, False), (24, True), (-48, True)):  # the last by a clock that was wrong
        with filled.writing() as connection:
            facts.put(connection, facts.LAST_SWEEP, now() - hours * 3_600_000_000)
        assert (await keep_house(filled, tmp_path)).swept is swept


def test_space_is_given_back_in_slices(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    maildrops.add_accounts(database, JO)
    number = maildrops.deposit(database, b"x" * 12_000_000 + b"\r\n", JO)
    with database.writing() as connection:
        accounts.remove_account(connection, Mailbox("jo", "example.org"))
        maildrops.sweep(connection)
    path = Path(str(database.path))
    space.checkpoint(database)
    before = path.stat().st_size
    steps = list(space.reclaim(database, spare_octets=1_000_000))
    assert number == 1
    assert len(steps) > 3
    assert max(steps) <= 4 * 1024 * 1024
    assert space.checkpoint(database)
    assert path.stat().st_size < before - 10_000_000
    assert list(space.reclaim(database, spare_octets=1_000_000)) == []
    database.dispose()


# -- quotas --------------------------------------------------------------------------------------


def warn(database: Database) -> list[int]:
    with database.writing() as connection:
        return fullness.warn(connection, [fullness.Warn("admin@example.org", now())])[0]


def test_an_owner_is_warned_once_a_crossing(database: Database) -> None:
    maildrops.add_accounts(database, JO)

    def fill(percent: int) -> None:
        with database.writing() as connection:
            connection.execute(update(account).values(octets=percent * 10_000))

    with database.writing() as connection:
        limits.set_for_domain(connection, "example.org", quota_octets=1_000_000)
    told = []
    for percent in (79, 80, 90, 95, 99, 94, 95, 78, 81, 70, 80):
        fill(percent)
        told.append(percent if warn(database) else 0)
    assert told == [0, 80, 0, 95, 0, 0, 0, 0, 0, 0, 80]
    first = b"".join(browse.octets_of(database, JO_ID, 1))
    assert first.startswith(b"Return-Path: <>\r\nDelivered-To: jo@example.org\r\n")
    assert b"Subject: Your mailbox is 80 % full\r\n" in first
    assert b"From: admin@example.org\r\n" in first


def test_messages_are_counted_too(database: Database) -> None:
    maildrops.add_accounts(database, JO)
    with database.writing() as connection:
        limits.set_for_account(connection, JO_ID, quota_messages=5)
    for _ in range(3):
        maildrops.deposit(database, b"\r\n", JO)
    assert warn(database) == []
    maildrops.deposit(database, b"\r\n", JO)
    with database.writing() as connection:
        limits.set_for_account(connection, JO_ID, quota_octets=100 * 1024)
    assert warn(database) == [JO_ID]
    assert warn(database) == []
    assert findings(database) == []
    text = b"".join(browse.octets_of(database, JO_ID, 5))
    assert b"The mailbox jo@example.org has 4 messages, 136 B in all.\r\n" in text
    assert b"It may hold 100 KiB and 5 messages.\r\n" in text


def test_an_owner_whose_address_is_not_ascii_can_read_the_warning(database: Database) -> None:  # RFC 6858
    maildrops.add_accounts(database, "jö@example.org")
    with database.writing() as connection:
        limits.set_for_account(connection, JO_ID, quota_messages=1)
    maildrops.deposit(database, b"\r\n", "jö@example.org")
    assert warn(database) == [JO_ID]
    with database.reading() as connection:
        utf8, in_ascii = (whole(connection, JO_ID, 2, surrogates=each) for each in (False, True))
    assert "\r\nTo: jö@example.org\r\n".encode() in utf8
    assert in_ascii.partition(b"\r\n\r\n")[0].isascii()
    assert in_ascii.partition(b"\r\n\r\n")[2] == utf8.partition(b"\r\n\r\n")[2]
    assert findings(database) == []


@pytest.mark.parametrize(
    ("default", "of_domain", "of_account", "days"),
    [
        ({}, {}, {}, None),
        ({"keep_seconds": 30 * DAY}, {}, {}, 30),
        ({"keep_seconds": 30 * DAY}, {"keep_read_seconds": 7 * DAY}, {}, 7),
        ({"keep_seconds": 30 * DAY}, {}, {"keep_seconds": UNLIMITED}, None),
        ({"keep_seconds": DAY - 1}, {}, {}, 0),
    ],
)
def test_expire_promises_no_more_than_is_kept(  # RFC 2449 §6.7
    database: Database,
    default: dict[str, int],
    of_domain: dict[str, int],
    of_account: dict[str, int],
    days: int | None,
) -> None:
    maildrops.add_accounts(database, JO)
    with database.writing() as connection:
        if of_domain:
            limits.set_for_domain(connection, "example.org", **of_domain)
        if of_account:
            limits.set_for_account(connection, JO_ID, **of_account)
    with database.reading() as connection:
        assert limits.expiry(connection, Limits(**default), JO_ID) == (days, False)
        assert limits.expiry(connection, Limits(**default)) == (days, False)


def test_before_login_expire_is_the_least_of_all(database: Database) -> None:  # RFC 2449 §6.7
    maildrops.add_accounts(database, JO, KIM)
    with database.writing() as connection:
        limits.set_for_account(connection, KIM_ID, keep_seconds=5 * DAY)
    with database.reading() as connection:
        assert limits.expiry(connection, Limits()) == (5, True)


def test_a_limit_on_the_number_of_messages_promises_no_days(database: Database) -> None:  # RFC 2449 §6.7
    maildrops.add_accounts(database, JO, KIM)
    with database.writing() as connection:
        limits.set_for_account(connection, KIM_ID, keep_seconds=5 * DAY, keep_messages=1000)
    with database.reading() as connection:
        assert limits.expiry(connection, Limits(), JO_ID) == (None, False)
        assert limits.expiry(connection, Limits(), KIM_ID) is None
        assert limits.expiry(connection, Limits()) is None
