"""The role `housekeeping`: the store's own work, again and again, in the process that serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from mailstack import log
from mailstack.errors import MaildropInUse
from mailstack.settings import Settings
from mailstack.store import facts, housekeeping, space
from mailstack.store.clock import SECOND, now
from mailstack.store.housekeeping import Report, Rules, Sweep
from mailstack.store.store import Store

_QUIET_SECONDS: Final = 30.0
"""After once or twice so long without a commit the log is copied back into the database."""


@asynccontextmanager
async def kept(store: Store, settings: Settings) -> AsyncIterator[None]:
    """Keep house for as long as the block lasts; a slice that is under way is finished first."""
    tasks = [asyncio.create_task(_runs(store, settings)), asyncio.create_task(_checkpoints(store))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _runs(store: Store, settings: Settings) -> None:
    every = settings.housekeeping.every_seconds
    began = now()
    while True:
        await asyncio.sleep(every / 10)
        try:
            if not await _is_due(store, every):
                continue
            # A start is no moment for a look through the whole store.
            sweep = Sweep.DAILY if now() - began >= every * SECOND else Sweep.NOT_NOW
            with suppress(MaildropInUse):  # another process keeps house now
                done = await housekeeping.run(
                    store, Rules.of(settings), postmaster=settings.postmaster, sweep=sweep
                )
                tell(done)
        except Exception as error:  # the next time may go better, and nobody waits for this one
            log.failure("housekeeping", error)


async def _is_due(store: Store, every_seconds: int) -> bool:
    """Whether no process has kept house for so long; workers and hosts share one clock, the store's."""
    last = await store.read(facts.get, facts.LAST_HOUSEKEEPING)
    return last is None or now() - last >= every_seconds * SECOND


async def _checkpoints(store: Store) -> None:
    quiet = space.QuietLog(store.database)
    while True:
        await asyncio.sleep(_QUIET_SECONDS)
        try:
            await asyncio.to_thread(quiet.look)
        except Exception as error:
            log.failure("checkpoint", error)


def tell(report: Report) -> None:
    """One line for the log."""
    log.event(
        "housekeeping",
        removed=sum(each.messages for each in report.maildrops.values()),
        in_use=len(report.in_use),
        forgotten=report.forgotten,
        orphans=report.orphans,
        events=report.events,
        freed_octets=report.freed_octets,
        warned=len(report.warned),
    )
