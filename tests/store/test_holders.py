"""What is kept of a lock's holder, and what becomes of a session that has lost its lock."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from mailstack.errors import LoggedInLately, MaildropInUse, StoreUnavailable
from mailstack.mail.address import parse_mailbox
from mailstack.mail.spool import Spool
from mailstack.store import accounts, domains
from mailstack.store.advisory_locks import AdvisoryLocks
from mailstack.store.engine import Database
from mailstack.store.file_locks import FileLocks
from mailstack.store.messages import Deposit, Recipient
from mailstack.store.store import Store

ACCOUNT = 7


@contextmanager
def locks(url: str, directory: Path) -> Iterator[FileLocks | AdvisoryLocks]:
    """One more process's locks, as far as the kernel or the database can tell."""
    database = Database(url)
    lost: list[bool] = []
    made = (
        FileLocks(directory / "maildrops.lock")
        if database.is_sqlite
        else AdvisoryLocks(database, lambda: lost.append(True))
    )
    try:
        yield made
    finally:
        made.close()
        database.dispose()


async def test_a_second_session_hears_since_when_and_from_where(database_url, tmp_path):
    # RFC 2449 §8.1.2; across processes, too
    with locks(database_url, tmp_path) as one, locks(database_url, tmp_path) as other:
        lock = await one.hold(ACCOUNT, holder="192.0.2.1")
        for each in (one, other):
            with pytest.raises(
                MaildropInUse, match=r"since \d\d:\d\d:\d\d UTC by a session from 192\.0\.2\.1"
            ):
                await each.hold(ACCOUNT, holder="192.0.2.2")
        await (await other.hold(ACCOUNT + 1, holder="192.0.2.2")).released()
        await lock.released()
        await (await other.hold(ACCOUNT, holder="192.0.2.2")).released()


async def test_a_login_waits_for_the_one_before_it(database_url, tmp_path):  # RFC 2449 §6.5
    with locks(database_url, tmp_path) as one, locks(database_url, tmp_path) as other:
        await (await one.hold(ACCOUNT, holder="a", login_delay_seconds=60)).released()
        with pytest.raises(LoggedInLately) as told:
            await other.hold(ACCOUNT, holder="a", login_delay_seconds=60)
        found = re.fullmatch(r"the last login was (\d+) seconds ago, wait (\d+) more", str(told.value))
        assert found is not None
        passed, wait = map(int, found.groups())
        assert passed <= 30
        assert abs(passed + wait - 60) <= 1  # each is rounded
        # Who was refused holds nothing, and whoever keeps house neither waits nor counts.
        await (await one.hold(ACCOUNT, holder="housekeeping")).released()
        await asyncio.sleep(0.02)
        await (await other.hold(ACCOUNT, holder="a", login_delay_seconds=0.01)).released()


async def test_nothing_is_expunged_once_the_lock_is_lost(postgresql_url, tmp_path):
    database = Database(postgresql_url)
    with database.writing() as connection:
        domains.add_domain(connection, "example.org")
        account = accounts.add_account(connection, parse_mailbox("jo@example.org"), password_hash="")
    store = Store(database, state_dir=tmp_path, reserve_octets=0)
    with Spool(tmp_path) as spool:
        spool.write(b"\r\nx\r\n")
        await store.deposit(Deposit("test", "", spool, False, (Recipient(account.id, b""),), 0))
    lock = await store.lock_maildrop(account.id, holder="192.0.2.1")
    with database.writing() as connection:  # as when a firewall forgets the connection
        connection.execute(text(f"SELECT pg_terminate_backend({lock.backend}, 10000)"))
    with pytest.raises(StoreUnavailable, match="lock of the maildrop was lost"):
        await store.expunge(account.id, [1], lock=lock)
    assert (await store.open_maildrop(account.id)).messages == 1
    told = []
    store.on_locks_lost.append(lambda: told.append("lost"))
    await store.lock_maildrop(account.id + 1, holder="192.0.2.1")  # on a new connection
    assert told == ["lost"]
    again = await store.lock_maildrop(account.id, holder="192.0.2.1")
    await store.expunge(account.id, [1], lock=again)
    assert (await store.open_maildrop(account.id)).messages == 0
    await again.released()
    await store.close()


async def test_a_login_on_postgresql_waits_for_no_disk(postgresql_url, tmp_path):
    database = Database(postgresql_url)
    with database.reading() as connection:
        kind = connection.execute(
            text("SELECT relpersistence FROM pg_class WHERE relname = 'maildrop_holder'")
        ).scalar_one()
    assert kind in ("u", b"u")
    database.dispose()
