"""Work on one maildrop while the service runs: under its lock, as everyone who changes what is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from mailstack.errors import AlreadyRunning, MaildropInUse
from mailstack.settings import Settings
from mailstack.store.engine import Database
from mailstack.store.locks import HOUSEKEEPING
from mailstack.store.store import Store

T = TypeVar("T")


def with_lock(
    database: Database,
    settings: Settings,
    account_id: int,
    work: Callable[[], T],
    *,
    holder: str,
    octets: int = 0,
) -> T:
    """Do the work on a thread while this process holds the lock; raises MaildropInUse during a session.

    And StoreFull where it would put so many octets where there is no room beside the reserve.
    """

    async def done() -> T:
        async with opened(database, settings) as store:
            if octets:
                await store.disk.require(octets)
            async with locked(store, account_id, holder):
                return await asyncio.to_thread(work)

    return asyncio.run(done())


@asynccontextmanager
async def opened(database: Database, settings: Settings) -> AsyncIterator[Store]:
    """The store, as a process that serves has it."""
    store = Store.of(database, settings)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def locked(store: Store, account_id: int, holder: str) -> AsyncIterator[None]:
    """Hold the lock of a maildrop; raises MaildropInUse during a session.

    For HOUSEKEEPING, which is no maildrop, AlreadyRunning.
    """
    try:
        lock = await store.lock_maildrop(account_id, holder=holder)
    except MaildropInUse as error:
        if account_id == HOUSEKEEPING:
            raise AlreadyRunning(f"housekeeping is at work, {error}; try again later") from error
        raise MaildropInUse(
            f"the maildrop is in use, {error}; try again later, or end that: mailstack session kick"
        ) from error
    try:
        yield
    finally:
        lock.release()
