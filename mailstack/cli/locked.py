"""Work on one maildrop while the service runs: under its lock, as everyone who changes what is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from mailstack.settings import Settings
from mailstack.store.engine import Database
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
    return asyncio.run(_with_lock(database, settings, account_id, work, holder=holder, octets=octets))


async def _with_lock(
    database: Database,
    settings: Settings,
    account_id: int,
    work: Callable[[], T],
    *,
    holder: str,
    octets: int,
) -> T:
    store = Store(
        database,
        state_dir=settings.state_dir,
        reserve_octets=settings.store.reserve_octets,
        keep_events=settings.trace.keep_seconds > 0,
    )
    try:
        if octets:
            await store.require_space(octets)
        lock = await store.lock_maildrop(account_id, holder=holder)
        try:
            return await asyncio.to_thread(work)
        finally:
            lock.release()
    finally:
        await store.close()
