"""Keeps the house: old mail goes, space comes back, owners of full maildrops are told.

Only one process of all that share a store does this at a time. A maildrop that somebody has open is
passed over: whoever removes entries holds its lock (RFC 1939 §4), and there is a next time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, NamedTuple, Self

from sqlalchemy import Connection

from mailstack import log
from mailstack.errors import MaildropInUse
from mailstack.settings import Settings
from mailstack.store import events, facts, fullness, integrity, limits, removal, retention, space, undo
from mailstack.store.checkpoint import LARGE_LOG_OCTETS
from mailstack.store.clock import SECOND, now
from mailstack.store.events import Kind
from mailstack.store.limits import Limits
from mailstack.store.locks import HOUSEKEEPING
from mailstack.store.removal import Expunge
from mailstack.store.retention import Doomed
from mailstack.store.runs import Runs
from mailstack.store.store import Store
from mailstack.store.tables import REMOVED_BY_ADMIN, REMOVED_BY_CLIENT, REMOVED_BY_HOUSEKEEPING
from mailstack.values import DAY_SECONDS

_HOLDER: Final = "housekeeping"
_PAUSE_SECONDS: Final = 0.01
"""Between two slices of work: who has been waiting for the writer comes first."""


class Sweep(Enum):
    """When the whole store is looked through for what belongs to nothing: gigabytes, where it is large."""

    DAILY = auto()
    """If the last time, whoever did it, was a day ago."""
    NOW = auto()
    NOT_NOW = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the settings say."""

    default: Limits
    undo_seconds: int
    undo_deleted_seconds: int
    trace_seconds: int = events.KEEP_SECONDS

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What the settings say of keeping and undoing."""
        retention = settings.retention
        default = Limits(
            keep_seconds=retention.keep_seconds,
            keep_read_seconds=retention.keep_read_seconds,
            keep_messages=retention.keep_messages,
        )
        return cls(
            default=default,
            undo_seconds=retention.undo_seconds,
            undo_deleted_seconds=retention.undo_deleted_seconds,
            trace_seconds=settings.trace.keep_seconds,
        )


@dataclass(slots=True)
class Report:
    """What was done, or would be."""

    maildrops: dict[int, Doomed] = field(default_factory=dict)
    """What was removed as too old or too many, by account."""
    in_use: list[int] = field(default_factory=list)
    """Accounts that were passed over because somebody was there."""
    forgotten: int = 0
    """Removed messages that can no longer be brought back."""
    swept: bool = False
    """Whether the whole store was looked through."""
    orphans: int = 0
    """Messages and content that belonged to nothing."""
    events: int = 0
    """Events that are too old to be told by `mailstack trace`."""
    freed_octets: int = 0
    """What the file system got back."""
    warned: list[int] = field(default_factory=list)
    """Accounts whose owners were told that they are nearly full."""


async def preview(store: Store, rules: Rules) -> Report:
    """What `run` would remove from the maildrops now; changes nothing."""
    report = Report()
    for account_id, found in (await store.read(limits.of_all, rules.default)).items():
        doomed = await store.read(retention.count, account_id, found, now())
        if doomed.messages:
            report.maildrops[account_id] = doomed
    return report


class _Ended(NamedTuple):
    """What the store is to remember: the name of a fact, and when it was."""

    name: str
    at: int


async def run(
    store: Store, rules: Rules, *, postmaster: str | None = None, sweep: Sweep = Sweep.DAILY
) -> Report:
    """Do all of it once; raises MaildropInUse where another process keeps house now."""
    lock = await store.lock_maildrop(HOUSEKEEPING, holder=_HOLDER)
    try:
        report = Report()
        for account_id, found in (await store.read(limits.of_all, rules.default)).items():
            await _retain(store, account_id, found, rules, report)
        await _forget(store, rules, report)
        await _forget_events(store, rules, report)
        report.warned = await store.write(fullness.warn, fullness.Warn(postmaster, now()))
        if await _is_to_be_swept(store, sweep):
            report.orphans = await asyncio.to_thread(_swept, store)
            report.swept = True
            await store.write(_remember, _Ended(facts.LAST_SWEEP, now()))
        await store.leftovers.finish()
        report.freed_octets = await _reclaimed(store)
        await asyncio.to_thread(space.checkpoint, store.database)
        await store.write(_remember, _Ended(facts.LAST_HOUSEKEEPING, now()))
        return report
    finally:
        lock.release()


async def _retain(store: Store, account_id: int, found: Limits, rules: Rules, report: Report) -> None:
    if (found.keep_seconds, found.keep_read_seconds, found.keep_messages) == (None, None, None):
        return
    at = now()
    if not await store.read(retention.doomed, account_id, found, at):
        return  # nobody is locked out for nothing
    try:
        lock = await store.lock_maildrop(account_id, holder=_HOLDER)
    except MaildropInUse:
        report.in_use.append(account_id)
        return
    removed_by = REMOVED_BY_HOUSEKEEPING if rules.undo_seconds else None
    total = Doomed(0, 0)
    uids = Runs()
    try:
        while doomed := await store.read(retention.doomed, account_id, found, at):
            await store.write(removal.expunge, Expunge(account_id, list(doomed), removed_by, lock.backend))
            uids.extend(doomed)
            total = Doomed(total.messages + len(doomed), total.octets + sum(doomed.values()))
            await asyncio.sleep(_PAUSE_SECONDS)
    finally:
        lock.release()
        _tell(store, account_id, uids, undo_until=at + rules.undo_seconds * SECOND)
    report.maildrops[account_id] = total


def _tell(store: Store, account_id: int, uids: Runs, *, undo_until: int) -> None:
    if uids:
        store.journal.note(
            log.new_session_id(),
            Kind.REMOVED,
            [events.account_mark(account_id)],
            account_id=account_id,
            uids=str(uids),
            why="retention",
            undo_until=undo_until,
        )


async def _forget(store: Store, rules: Rules, report: Report) -> None:
    windows = {
        REMOVED_BY_HOUSEKEEPING: rules.undo_seconds,
        REMOVED_BY_ADMIN: rules.undo_seconds,
        REMOVED_BY_CLIENT: rules.undo_deleted_seconds,
    }
    for removed_by, seconds in windows.items():
        before = now() - seconds * SECOND
        while count := await store.write(undo.forget, undo.Forget(removed_by, before)):
            report.forgotten += count
            await asyncio.sleep(_PAUSE_SECONDS)


async def _forget_events(store: Store, rules: Rules, report: Report) -> None:
    before = now() - rules.trace_seconds * SECOND
    while count := await store.write(events.forget, before):
        report.events += count
        await asyncio.sleep(_PAUSE_SECONDS)


async def _is_to_be_swept(store: Store, sweep: Sweep) -> bool:
    if sweep is not Sweep.DAILY:
        return sweep is Sweep.NOW
    last = await store.read(facts.get, facts.LAST_SWEEP)
    # A time to come, from a clock that was wrong, puts nothing off for years.
    return last is None or abs(now() - last) >= DAY_SECONDS * SECOND


def _swept(store: Store) -> int:
    total = 0
    for count in integrity.sweep(store.database):
        total += count
        _shorten_log(store)
    return total


async def _reclaimed(store: Store) -> int:
    total = 0
    steps = space.reclaim(store.database)
    while octets := await asyncio.to_thread(next, steps, 0):
        total += octets
        await asyncio.to_thread(_shorten_log, store)
        await asyncio.sleep(_PAUSE_SECONDS)
    return total


def _shorten_log(store: Store) -> None:
    """Where mail comes, its writer does that sooner. SQLite would, a little later, inside a commit."""
    space.checkpoint(store.database, from_octets=LARGE_LOG_OCTETS)


def _remember(connection: Connection, jobs: Sequence[_Ended]) -> list[None]:
    for name, at in jobs:
        facts.put(connection, name, at)
    return [None] * len(jobs)
