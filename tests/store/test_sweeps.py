"""When a process removes content that is left over, by itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, select

from mailstack.errors import StoreFull
from mailstack.mail.spool import PART_OCTETS, Spool
from mailstack.store import leftovers, messages
from mailstack.store.engine import Database
from mailstack.store.leftovers import Slice
from mailstack.store.messages import Deposit, Recipient
from mailstack.store.store import Store
from mailstack.store.tables import leftover, message
from tests.support import maildrops
from tests.support.appliance import wait_until
from tests.support.contents import findings
from tests.support.leftovers import (
    ALL,
    JO,
    JO_ID,
    KIM_ID,
    expunge,
    filled,
    noted,
    numbers,
    octets,
    swept,
)
from tests.support.stores import opened

__all__ = ["filled"]


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
