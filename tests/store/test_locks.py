"""The lock of a maildrop as the store has it: one session, whatever the database is."""

from __future__ import annotations

import asyncio

import pytest

from mailstack.errors import MaildropInUse
from mailstack.store.engine import Database
from mailstack.store.store import Store


async def test_the_store_takes_the_kind_that_fits_its_database(database, tmp_path):
    store = Store(database, state_dir=tmp_path, reserve_octets=0)
    lock = await store.lock_maildrop(1, holder="192.0.2.1")
    with pytest.raises(MaildropInUse):
        await store.lock_maildrop(1, holder="192.0.2.2")
    lock.release()
    async with asyncio.timeout(10):
        while True:
            try:
                await store.lock_maildrop(1, holder="192.0.2.2")
                break
            except MaildropInUse:  # on PostgreSQL letting go takes a round trip
                await asyncio.sleep(0.01)
    await store.close()


async def test_a_store_that_was_closed_has_freed_every_maildrop(database, database_url, tmp_path):
    other = Database(database_url)
    first = Store(database, state_dir=tmp_path, reserve_octets=0)
    for lock in [await first.lock_maildrop(number, holder="192.0.2.1") for number in range(30)]:
        lock.release()
    await first.close()
    second = Store(other, state_dir=tmp_path, reserve_octets=0)
    for number in range(30):
        await second.lock_maildrop(number, holder="192.0.2.2")
    await second.close()
