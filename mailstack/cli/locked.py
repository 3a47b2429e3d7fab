"""Work on one maildrop while the service runs: under its lock, as everyone who changes what is there.

The work has the main thread, where Ctrl-C is heard: that ends the work, and only then the lock goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from mailstack.errors import AlreadyRunning, MaildropInUse
from mailstack.settings import Settings
from mailstack.store.engine import Database
from mailstack.store.locks import HOUSEKEEPING, MaildropLock
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
    """Do the work while this process holds the lock; raises MaildropInUse during a session.

    And StoreFull where it would put so many octets where there is no room beside the reserve.
    """
    with opened(database, settings) as (runner, store):
        if octets:
            runner.run(store.disk.require(octets))
        with locked(runner, store, account_id, holder):
            return work()


@contextmanager
def opened(database: Database, settings: Settings) -> Iterator[tuple[asyncio.Runner, Store]]:
    """The store, as a process that serves has it, and the runner of its event loop, which rests else."""

    async def made() -> Store:
        return Store.of(database, settings)

    with asyncio.Runner() as runner:
        store = runner.run(made())
        try:
            yield runner, store
        finally:
            runner.run(store.close())


@contextmanager
def locked(runner: asyncio.Runner, store: Store, account_id: int, holder: str) -> Iterator[None]:
    """Hold the lock of a maildrop; raises MaildropInUse during a session.

    For HOUSEKEEPING, which is no maildrop, AlreadyRunning.
    """
    lock = runner.run(_lock(store, account_id, holder))
    try:
        yield
    finally:
        runner.run(lock.released())


async def _lock(store: Store, account_id: int, holder: str) -> MaildropLock:
    try:
        return await store.lock_maildrop(account_id, holder=holder)
    except MaildropInUse as error:
        if account_id == HOUSEKEEPING:
            raise AlreadyRunning(f"housekeeping is at work, {error}; try again later") from error
        raise MaildropInUse(
            f"the maildrop is in use, {error}; try again later, or end that: mailstack session kick"
        ) from error
