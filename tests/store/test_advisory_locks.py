"""The lock of a maildrop across hosts: one session; a connection that is lost frees it, and that is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import pytest
from sqlalchemy import text

from mailstack.errors import MaildropInUse, StoreUnavailable
from mailstack.store.advisory_locks import AdvisoryLocks
from mailstack.store.engine import Database
from tests.support.faults import Faults, Kind


class Host:
    """One of several that share a PostgreSQL database."""

    def __init__(self, url: str) -> None:
        self.losses = 0
        self.database = Database(url)
        self.locks = AdvisoryLocks(self.database, self._lost)

    def _lost(self) -> None:
        self.losses += 1

    def close(self) -> None:
        self.locks.close()
        self.database.dispose()


@pytest.fixture
def hosts(postgresql_url) -> Iterator[tuple[Host, Host]]:
    pair = Host(postgresql_url), Host(postgresql_url)
    yield pair
    for host in pair:
        host.close()


def cut_off(url: str) -> None:
    """End every connection that holds an advisory lock, as a network does."""
    database = Database(url)
    with database.writing() as connection:
        connection.execute(
            text("SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE locktype = 'advisory'")
        )
    database.dispose()


async def test_hosts_keep_each_other_out(hosts):
    here, there = hosts
    lock = await here.locks.hold(7, holder="192.0.2.1")
    with pytest.raises(MaildropInUse, match=r"192\.0\.2\.1"):
        await here.locks.hold(7, holder="192.0.2.2")
    with pytest.raises(MaildropInUse, match=r"192\.0\.2\.1"):
        await there.locks.hold(7, holder="192.0.2.2")
    other = await there.locks.hold(8, holder="192.0.2.2")
    lock.release()
    lock.release()
    await here.locks.settled()
    (await there.locks.hold(7, holder="192.0.2.2")).release()
    other.release()
    await there.locks.settled()


async def test_many_at_once_on_the_one_connection(hosts):
    here, there = hosts
    mine = await asyncio.gather(*(here.locks.hold(n, holder="x") for n in range(50)))
    refused = await asyncio.gather(
        *(there.locks.hold(n, holder="y") for n in range(50)), return_exceptions=True
    )
    assert all(isinstance(each, MaildropInUse) for each in refused)
    for lock in mine:
        lock.release()
    await here.locks.settled()
    for lock in await asyncio.gather(*(there.locks.hold(n, holder="y") for n in range(50))):
        lock.release()
    await there.locks.settled()


async def test_a_lost_connection_is_told_and_its_locks_are_free(hosts, postgresql_url):
    here, there = hosts
    stale = await here.locks.hold(7, holder="192.0.2.1")
    cut_off(postgresql_url)
    theirs = await there.locks.hold(7, holder="192.0.2.2")
    await here.locks.hold(9, holder="192.0.2.1")  # whoever logs in next has nothing to do with it
    assert here.losses == 1
    stale.release()  # must not free what is another host's by now
    await here.locks.settled()
    with pytest.raises(MaildropInUse):
        await here.locks.hold(7, holder="192.0.2.1")
    theirs.release()
    await there.locks.settled()
    await here.locks.hold(7, holder="192.0.2.1")
    assert here.losses == 1


async def test_a_connection_that_waits_for_no_disk_serves_nobody_else(hosts):
    here, _ = hosts
    faults = Faults(here.database)
    with here.database.reading():
        pass  # the first connection of all is asked what its server can do
    with faults.at(-1, Kind.REFUSED):  # nowhere: to see what is asked
        (await here.locks.hold(7, holder="192.0.2.1")).release()
        await here.locks.settled()
    points = len(faults.points)
    assert points == 5
    for number in range(points):
        here.locks.close()
        here.database.engine.dispose()
        with faults.at(number, Kind.REFUSED), suppress(StoreUnavailable):
            # Each time another one: the server may not have noticed yet that the connection before is closed.
            (await here.locks.hold(8 + number, holder="192.0.2.1")).release()
            await here.locks.settled()
        here.locks.close()
        # None is left over, to go back to the pool whenever the error is forgotten.
        assert here.database.engine.pool.checkedout() == 0, faults.struck
        with here.database.reading() as connection:
            assert connection.scalar(text("SHOW synchronous_commit")) == "on", faults.struck


async def test_closing_the_connection_frees_all(hosts):
    here, there = hosts
    await here.locks.hold(7, holder="192.0.2.1")
    here.locks.close()
    async with asyncio.timeout(10):
        while True:
            try:
                await there.locks.hold(7, holder="192.0.2.2")
                return
            except MaildropInUse:  # the server has not noticed yet
                await asyncio.sleep(0.01)
