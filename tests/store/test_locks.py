"""The lock of a maildrop: one session, across tasks, processes and hosts; its holder's death frees it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import text

from mailstack.errors import MaildropInUse, StoreUnavailable
from mailstack.store.engine import Database
from mailstack.store.locks import AdvisoryLocks, FileLocks
from mailstack.store.store import Store
from tests.support.faults import Faults, Kind

HOLDER = """
import asyncio, sys
from pathlib import Path
from mailstack.store.locks import FileLocks

locks = FileLocks(Path(sys.argv[1]))
asyncio.run(locks.hold(int(sys.argv[2]), holder="192.0.2.7"))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(path: Path, account_id: int) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), str(account_id)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


# -- on one host ---------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "maildrops.lock"


async def test_a_maildrop_has_one_session(path):
    locks = FileLocks(path)
    lock = await locks.hold(7, holder="192.0.2.1")
    with pytest.raises(
        MaildropInUse, match=r"^held since \d\d:\d\d:\d\d UTC by a session from 192\.0\.2\.1$"
    ):
        await locks.hold(7, holder="192.0.2.2")
    other = await locks.hold(8, holder="192.0.2.2")
    lock.release()
    again = await locks.hold(7, holder="192.0.2.3")
    lock.release()  # a second time: the lock is somebody else's by now
    with pytest.raises(MaildropInUse, match=r"192\.0\.2\.3"):
        await locks.hold(7, holder="192.0.2.4")
    again.release()
    other.release()
    locks.close()


async def test_another_process_is_kept_out_until_it_dies(path):
    locks = FileLocks(path)
    with another_process(path, 7) as process:
        with pytest.raises(MaildropInUse, match=r"192\.0\.2\.7"):
            await locks.hold(7, holder="192.0.2.1")
        (await locks.hold(6, holder="192.0.2.1")).release()
        (await locks.hold(8, holder="192.0.2.1")).release()
        process.kill()
        process.wait()
        (await locks.hold(7, holder="192.0.2.1")).release()
    locks.close()


async def test_closing_lets_everything_go(path):
    locks = FileLocks(path)
    lock = await locks.hold(7, holder="192.0.2.1")
    locks.close()
    lock.release()  # a session that ends after the store was closed
    with another_process(path, 7):
        pass


async def test_a_holder_with_a_long_name(path):
    locks = FileLocks(path)
    await locks.hold(1, holder="ü" * 500)
    with pytest.raises(MaildropInUse, match="üüü"):
        await locks.hold(1, holder="")
    locks.close()


async def test_a_lock_file_that_cannot_be_made(tmp_path):
    with pytest.raises(StoreUnavailable, match="No such file"):
        FileLocks(tmp_path / "none" / "maildrops.lock")


# -- across hosts --------------------------------------------------------------------------------------


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


# -- in the store --------------------------------------------------------------------------------------


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
