"""Content goes after its entries: in slices, whoever removed them and whatever happened since."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, select, update

from mailstack.errors import StoreFull
from mailstack.mail.address import Mailbox
from mailstack.mail.spool import PART_OCTETS, Spool
from mailstack.store import accounts, leftovers, messages, migrate, removal, undo
from mailstack.store.engine import Database
from mailstack.store.leftovers import Slice
from mailstack.store.messages import Deposit, Recipient
from mailstack.store.removal import Expunge
from mailstack.store.store import Store
from mailstack.store.tables import REMOVED_BY_CLIENT, content, entry, leftover, message
from tests.support import maildrops
from tests.support.appliance import wait_until
from tests.support.contents import findings
from tests.support.stores import opened

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


# -- one transaction ---------------------------------------------------------------------------------


def test_what_is_removed_is_noted_and_adds_up_until_it_goes(filled: Database) -> None:
    expunge(filled, JO_ID, 4, 6)
    assert noted(filled) == [4, 6]
    assert numbers(filled) == [1, 2, 3, 4, 5, 6]
    assert findings(filled) == []
    assert swept(filled) == 2
    assert (noted(filled), numbers(filled)) == ([], [1, 2, 3, 5])
    with filled.reading() as connection:
        assert parts(connection) == 4
    assert findings(filled) == []
    assert swept(filled) == 0


def test_who_still_has_a_message_keeps_it(filled: Database) -> None:
    expunge(filled, JO_ID, 1, 2)
    expunge(filled, KIM_ID, 2, removed_by=REMOVED_BY_CLIENT)
    assert swept(filled) == 2
    assert numbers(filled) == [1, 2, 3, 4, 5, 6]
    with filled.writing() as connection:
        assert [each.uid for each in undo.bring_back(connection, KIM_ID)] == [2]
    expunge(filled, KIM_ID, 1, 2)
    assert swept(filled) == 2
    assert numbers(filled) == [3, 4, 5, 6]
    assert findings(filled) == []


def test_all_who_remove_entries_note_them(filled: Database) -> None:
    expunge(filled, JO_ID, 4, removed_by=REMOVED_BY_CLIENT)
    with filled.writing() as connection:
        assert undo.forget(connection, [undo.Forget(REMOVED_BY_CLIENT, 1 << 60)]) == [1]
    assert noted(filled) == [4]
    expunge(filled, JO_ID, 5, removed_by=REMOVED_BY_CLIENT)
    with filled.writing() as connection:
        accounts.remove_account(connection, Mailbox("jo", "example.org"))
    assert sorted(noted(filled)) == [1, 2, 3, 4, 5, 6]
    assert findings(filled) == []
    assert swept(filled) == 6
    assert numbers(filled) == [1, 2, 3]


def test_a_message_may_be_noted_twice(filled: Database) -> None:
    expunge(filled, JO_ID, 1)
    expunge(filled, KIM_ID, 1)
    assert noted(filled) == [1, 1]
    assert swept(filled, Slice(messages=1, octets=0)) == 1
    assert 1 not in numbers(filled)
    assert swept(filled, Slice(messages=1, octets=0)) == 1
    assert noted(filled) == []


@pytest.mark.parametrize(
    ("job", "steps"),
    [
        (Slice(messages=2, octets=1 << 30), [[4, 5], [6]]),
        (Slice(messages=9, octets=30), [[4, 5], [6]]),  # 6 is larger than that, and goes alone
        (Slice(messages=9, octets=0), [[4], [5], [6]]),
        (Slice(messages=9, octets=1 << 30, seconds=0), [[4, 5, 6]]),  # one bundle
        (Slice(messages=9, octets=30, seconds=0), [[4, 5], [6]]),
    ],
)
def test_a_slice_is_bounded(filled: Database, job: Slice, steps: Sequence[Sequence[int]]) -> None:
    expunge(filled, JO_ID, 4, 5, 6)
    for gone in steps:
        before = numbers(filled)
        assert swept(filled, job) == len(gone)
        assert sorted(set(before) - set(numbers(filled))) == list(gone)
        assert findings(filled) == []
    assert swept(filled, job) == 0


def test_an_older_schema_has_nothing_left_over(filled: Database) -> None:
    expunge(filled, JO_ID, 1, 4, 6)
    assert migrate.downgrade(filled, lambda said: None, revision="0007")
    with filled.reading() as connection:
        left = connection.execute(select(message.c.id).order_by(message.c.id)).scalars().all()
        assert (left, parts(connection)) == ([1, 2, 3, 5], 4)
    assert migrate.upgrade(filled, lambda said: None)
    assert findings(filled) == []


# -- several hosts -----------------------------------------------------------------------------------


@pytest.fixture
def hosts(postgresql_url: str) -> Iterator[tuple[Database, Database]]:
    """One database, as two hosts have it."""
    both = Database(postgresql_url), Database(postgresql_url)
    yield both
    for each in both:
        each.dispose()


def test_two_hosts_that_remove_the_last_two_entries_leave_nothing(hosts: tuple[Database, Database]) -> None:
    here, there = hosts
    maildrops.add_accounts(here, JO, KIM)
    maildrops.deposit(here, b"Subject: x\r\n\r\n", JO, KIM)
    with here.writing() as ours, there.writing() as theirs:
        removal.expunge(ours, [Expunge(JO_ID, [1])])
        removal.expunge(theirs, [Expunge(KIM_ID, [1])])  # neither sees the other's, nor waits for it
    assert swept(here, Slice(messages=1, octets=0)) == 1
    assert swept(here) == 1
    assert numbers(here) == []


def test_the_sweep_between_the_two_leaves_it_to_the_second(hosts: tuple[Database, Database]) -> None:
    here, there = hosts
    maildrops.add_accounts(here, JO, KIM)
    maildrops.deposit(here, b"Subject: x\r\n\r\n", JO, KIM)
    with there.writing() as theirs:
        removal.expunge(theirs, [Expunge(KIM_ID, [1])])
        expunge(here, JO_ID, 1)
        assert swept(here) == 1
        assert numbers(here) == [1]
    assert swept(here) == 1
    assert numbers(here) == []


def test_two_sweeps_take_different_notes(hosts: tuple[Database, Database]) -> None:
    here, there = hosts
    maildrops.add_accounts(here, JO)
    for _ in range(3):
        maildrops.deposit(here, b"Subject: x\r\n\r\n", JO)
    expunge(here, JO_ID, 1, 2, 3)
    with here.writing() as ours:
        assert leftovers.sweep(ours, [Slice(messages=2, octets=1 << 20)]) == [True]
        with there.writing() as theirs:
            assert leftovers.sweep(theirs, [ALL]) == [False]
        assert noted(here) == [1, 2]
    assert (numbers(here), noted(here)) == ([], [])


def test_a_sweep_waits_for_whoever_enters_the_message_again(hosts: tuple[Database, Database]) -> None:
    here, there = hosts
    maildrops.add_accounts(here, JO, KIM)
    maildrops.deposit(here, b"Subject: x\r\n\r\n", JO, KIM)
    expunge(here, JO_ID, 1)
    with here.reading() as connection:
        kept = dict(connection.execute(select(entry)).mappings().one())
    expunge(here, KIM_ID, 1)
    done: list[int] = []
    sweeping = threading.Thread(target=lambda: done.append(swept(there)))
    with here.writing() as connection:  # as a restore does
        connection.execute(select(message.c.id).where(message.c.id == 1).with_for_update()).one()
        connection.execute(insert(entry).values(kept))
        added = {"messages": 1, "octets": kept["octets"]}
        connection.execute(update(accounts.account).where(accounts.account.c.id == KIM_ID).values(added))
        sweeping.start()
        _await_a_waiting(here)
    sweeping.join(30)
    assert done == [2]
    assert numbers(here) == [1]
    assert findings(here) == []


def _await_a_waiting(database: Database) -> None:
    """Until a backend of the database waits for a lock."""
    wanted = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    for _ in range(1000):
        with database.reading() as connection:
            if connection.exec_driver_sql(wanted).scalar_one():
                return
        threading.Event().wait(0.01)
    raise AssertionError("nobody waits")


# -- by itself ---------------------------------------------------------------------------------------


async def until_nothing_is_left(database: Database) -> None:
    await asyncio.to_thread(wait_until, lambda: not noted(database), what="nothing is left over")


async def quit_after_deleting(store: Store, account_id: int, *uids: int) -> None:
    lock = await store.lock_maildrop(account_id, holder="192.0.2.1")
    await store.expunge(account_id, uids, lock=lock)
    await lock.released()


@pytest.fixture
def sweeps(monkeypatch: pytest.MonkeyPatch) -> list[Slice]:
    """Which sweeps there were. None begins by itself, unless a test says when."""
    seen: list[Slice] = []

    def sweep(connection: Connection, jobs: Sequence[Slice]) -> list[bool]:
        seen.extend(jobs)
        return leftovers.sweep(connection, jobs)

    monkeypatch.setattr(leftovers, "_ATTEMPTS", ((sweep, ALL),) * 3)
    monkeypatch.setattr(leftovers, "QUIET_SECONDS", 1000.0)
    monkeypatch.setattr(leftovers, "LATEST_SECONDS", 1000.0)
    return seen


async def test_content_of_several_sessions_goes_together_once_nobody_deletes(
    filled: Database, tmp_path: Path, sweeps: list[Slice], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = octets(filled)
    async with opened(filled, tmp_path) as store:
        await quit_after_deleting(store, JO_ID, 4)
        await quit_after_deleting(store, KIM_ID, 1)
        await quit_after_deleting(store, JO_ID, 6)
        assert (noted(filled), sweeps) == ([4, 1, 6], [])
        assert store.leftovers.octets == full - octets(filled)
    monkeypatch.setattr(leftovers, "QUIET_SECONDS", 0.05)
    async with opened(filled, tmp_path) as store:
        store.leftovers.ask()  # as a server does that starts
        await until_nothing_is_left(filled)
        await quit_after_deleting(store, JO_ID, 5)
        await until_nothing_is_left(filled)
        assert store.leftovers.octets == 0
    assert numbers(filled) == [1, 2, 3]
    assert len(sweeps) == 2


async def test_content_that_is_more_than_a_slice_goes_as_a_whole(
    filled: Database, tmp_path: Path, sweeps: list[Slice], monkeypatch: pytest.MonkeyPatch
) -> None:
    ((sweep, _), *_) = leftovers._ATTEMPTS
    monkeypatch.setattr(leftovers, "_ATTEMPTS", ((sweep, Slice(1, 1 << 30)),) * 3)
    monkeypatch.setattr(leftovers, "QUIET_SECONDS", 0.05)
    async with opened(filled, tmp_path) as store:
        await quit_after_deleting(store, JO_ID, 6, 5, 4)
        await until_nothing_is_left(filled)
        assert [len(each.notes) for each in sweeps[:3]] == [0, 1, 1]
        monkeypatch.setattr(leftovers, "_MANY_OCTETS", 1)
        sweeps.clear()
        await quit_after_deleting(store, JO_ID, 1, 2)
        await until_nothing_is_left(filled)
        assert [len(each.notes) for each in sweeps] == [1, 1]
    assert numbers(filled) == [1, 2, 3]


async def test_content_does_not_wait_for_ever_for_those_who_delete(
    filled: Database, tmp_path: Path, sweeps: list[Slice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "LATEST_SECONDS", 0.05)
    async with opened(filled, tmp_path) as store:
        await quit_after_deleting(store, JO_ID, 4)
        while noted(filled):
            store.leftovers.ask()
            await asyncio.sleep(0.001)
    assert numbers(filled) == [1, 2, 3, 5, 6]


async def test_much_content_goes_at_once(
    filled: Database, tmp_path: Path, sweeps: list[Slice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "ENOUGH_OCTETS", 2 * PART_OCTETS)
    async with opened(filled, tmp_path) as store:
        await quit_after_deleting(store, JO_ID, 4, 5)
        assert (noted(filled), sweeps) == ([4, 5], [])
        await quit_after_deleting(store, JO_ID, 6)
        await until_nothing_is_left(filled)


async def test_who_deletes_on_a_full_disk_makes_room_at_once(
    filled: Database, tmp_path: Path, sweeps: list[Slice]
) -> None:
    store = Store(filled, state_dir=tmp_path, reserve_octets=2 * _free_octets(tmp_path))
    try:
        await quit_after_deleting(store, JO_ID, 4)
        await until_nothing_is_left(filled)
    finally:
        await store.close()


async def test_what_lies_first_goes_first(
    filled: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[list[int]] = []

    def sweep(connection: Connection, jobs: Sequence[Slice]) -> list[bool]:
        there.append(list(connection.execute(select(message.c.id).order_by(message.c.id)).scalars()))
        return leftovers.sweep(connection, jobs)

    monkeypatch.setattr(leftovers, "_ATTEMPTS", ((sweep, Slice(2, 1 << 30)),) * 3)
    for uid in (6, 4, 5):
        expunge(filled, JO_ID, uid)
    async with opened(filled, tmp_path) as store:
        await store.leftovers.finish()
    assert there == [[1, 2, 3, 4, 5, 6], [1, 2, 3, 6]]
    assert (numbers(filled), noted(filled)) == ([1, 2, 3], [])


def test_a_note_whose_number_is_another_ones_now_is_taken_for_what_it_says(filled: Database) -> None:
    expunge(filled, JO_ID, 4)
    with filled.reading() as connection:
        notes = leftovers.in_order(connection)
    assert swept(filled) == 1
    with filled.writing() as connection:  # SQLite gives the number again
        connection.execute(insert(leftover).values(id=notes[0], message_id=1))
    assert swept(filled, ALL._replace(notes=notes)) == 1
    assert (numbers(filled), noted(filled)) == ([1, 2, 3, 5, 6], [])


async def test_what_a_process_has_left_the_next_one_removes(filled: Database, tmp_path: Path) -> None:
    async with opened(filled, tmp_path) as store:
        await quit_after_deleting(store, JO_ID, 4, 6)
    assert noted(filled) == [4, 6]
    async with opened(filled, tmp_path) as store:
        store.leftovers.ask()
        await until_nothing_is_left(filled)
    assert numbers(filled) == [1, 2, 3, 5]


async def test_others_write_between_two_slices(
    filled: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "_ATTEMPTS", ((leftovers.sweep, Slice(1, 0)),) * 3)
    left: list[int] = []

    def look(connection: Connection, jobs: Sequence[None]) -> list[None]:
        left.append(connection.execute(select(func.count()).select_from(leftover)).scalar_one())
        return [None] * len(jobs)

    expunge(filled, JO_ID, 1, 2, 3, 4, 5, 6)
    async with opened(filled, tmp_path) as store:
        store.leftovers.ask()
        while not left or left[-1]:
            await store.write(look, None)
    assert set(left) >= {6, 5, 4, 3, 2, 1, 0}
    assert left == sorted(left, reverse=True)


async def test_a_lost_page_keeps_nothing_but_what_is_on_it(
    filled: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    remove = leftovers._remove

    def remove_or_fail(connection: Connection, doomed: list[tuple[int, ...]]) -> None:
        if any(number == 5 for number, *_ in doomed):
            raise leftovers.StoreDamaged("page 77 is lost")
        remove(connection, doomed)

    monkeypatch.setattr(leftovers, "_remove", remove_or_fail)
    expunge(filled, JO_ID, 4, 5, 6)
    async with opened(filled, tmp_path) as store:
        await store.leftovers.finish()
    assert numbers(filled) == [1, 2, 3, 5]
    assert findings(filled) == ["message 5 is in no maildrop"]
    assert [record.message for record in caplog.records] == ["removal of content"]


async def test_a_full_disk_has_room_as_soon_as_something_is_deleted(
    database: Database, tmp_path: Path
) -> None:
    if not database.is_sqlite:
        pytest.skip("PostgreSQL's disk is its own affair")
    maildrops.add_accounts(database, JO)
    maildrops.deposit(database, b"x" * 6_000_000 + b"\r\n", JO)
    free = _free_octets(tmp_path)
    store = Store(database, state_dir=tmp_path, reserve_octets=free * 3 // 2)
    try:
        with pytest.raises(StoreFull):
            await _deposit(store, tmp_path)
        expunge(database, JO_ID, 1)
        await _deposit(store, tmp_path)
        with database.reading() as connection:
            assert messages.snapshot(connection, JO_ID).messages == 1
    finally:
        await store.close()


def _free_octets(folder: Path) -> int:

    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


async def _deposit(store: Store, folder: Path) -> None:
    with Spool(folder) as spool:
        spool.write(b"x" * 2_000_000 + b"\r\n")
        await store.deposit(Deposit("id", "", spool, False, (Recipient(JO_ID, b""),), 1))
