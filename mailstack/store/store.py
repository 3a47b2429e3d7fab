"""The store as the event loop sees it: what may take time waits on a thread, never on the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, Self, TypeVar

from sqlalchemy import Connection

from mailstack.settings import Settings
from mailstack.store import fitness, listing, messages, removal, schema
from mailstack.store.advisory_locks import AdvisoryLocks
from mailstack.store.batches import Job, Result, Work
from mailstack.store.counts import Counts
from mailstack.store.disk import Disk
from mailstack.store.engine import Database
from mailstack.store.events import Journal
from mailstack.store.file_locks import FileLocks
from mailstack.store.glance import Glance
from mailstack.store.leftovers import Leftovers
from mailstack.store.listing import Layout, Listing, UniqueIds
from mailstack.store.locks import MaildropLock, MaildropLocks
from mailstack.store.messages import Deposit, Snapshot
from mailstack.store.readers import Readers
from mailstack.store.reads import Reads
from mailstack.store.removal import Expunge
from mailstack.store.tables import REMOVED_BY_CLIENT
from mailstack.store.walk import Source, Walk
from mailstack.store.writer import Writer
from mailstack.store.writing_process import WritingProcess
from mailstack.store.writing_thread import WritingThread

P = ParamSpec("P")
R = TypeVar("R")

_EXPUNGE_OCTETS: Final = 64
"""What one uid counts for in the writer's queue."""


class Store:
    """One process's way to the mail: reader threads, whoever writes, the maildrop locks."""

    def __init__(
        self,
        database: Database,
        *,
        state_dir: Path,
        reserve_octets: int,
        keep_deleted: bool = False,
        keep_events: bool = True,
        writing: WritingProcess | None = None,
    ) -> None:
        """`keep_deleted`: what sessions delete can be brought back, until housekeeping removes it.

        `writing`, which is ended with the store, writes in place of a thread of this process.
        """
        self._removed_by = REMOVED_BY_CLIENT if keep_deleted else None
        self.database = database
        self._readers = Readers(database)
        self._glance = Glance(database)
        self._writer = Writer(writing.joined if writing else lambda writer: WritingThread(writer, database))
        self.reads = Reads(self._writer)
        self.leftovers = Leftovers(self._writer, self._readers)
        self.disk = Disk(
            Path(database.path).parent if database.path else state_dir,
            reserve_octets=reserve_octets,
            leftovers=self.leftovers,
            readers=self._readers,
        )
        self._source = Source(self._readers, self._writer)
        self.journal = Journal(self._writer, kept=keep_events)
        self.counts = Counts()
        self.commits = self._writer.commits
        self.coming = self._writer.coming
        self.on_writer_lost = self._writer.on_lost
        self.on_locks_lost: list[Callable[[], None]] = []
        self._locks: MaildropLocks = (
            FileLocks(state_dir / "maildrops.lock")
            if database.is_sqlite
            else AdvisoryLocks(database, self._tell_locks_lost)
        )

    @classmethod
    def of(cls, database: Database, settings: Settings, *, writing: WritingProcess | None = None) -> Self:
        """As the settings have it."""
        return cls(
            database,
            state_dir=settings.state_dir,
            reserve_octets=settings.store.reserve_octets,
            keep_deleted=settings.retention.undo_deleted_seconds > 0,
            keep_events=settings.trace.keep_seconds > 0,
            writing=writing,
        )

    async def close(self) -> None:
        """Finish what was handed over, then give everything back."""
        await self.leftovers.close()
        await self.reads.close()
        await self.journal.close()
        await self._writer.close()
        await self._readers.close()
        await self._glance.close()
        await self._locks.settled()
        self._locks.close()
        self.database.dispose()

    async def read(
        self, function: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run one reading function in a short transaction that begins after this call, on a reader thread."""
        return await self._readers.read(lambda connection: function(connection, *args, **kwargs))

    def read_at_once(
        self, function: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R | None:
        """The same without waiting, for a function that finds one row by its key; None: await `read`."""
        return self._glance.at(function, *args, **kwargs)

    @property
    def waiting(self) -> tuple[int, int]:
        """How many jobs wait for the writer, and how much memory they hold."""
        return self._writer.waiting

    @property
    def writing_seconds(self) -> float:
        """For how long the batch has been written that is first; 0 where there is none."""
        return self._writer.writing_seconds

    async def write(self, work: Work[Job, Result], job: Job, *, octets: int = 0) -> Result:
        """Hand one job to the writer and wait until it is committed and synced."""
        return await self._writer.write(work, job, octets=octets)

    async def check(self) -> None:
        """Raise SchemaMismatch or StoreUnavailable unless the store can serve, and take mail."""
        await self.read(schema.check)
        await asyncio.to_thread(fitness.require_writable, self.database)
        await self._glance.connected()

    # -- delivery --------------------------------------------------------------------------------

    async def deposit(self, deposit: Deposit) -> int:
        """Place one message in every recipient's maildrop; return its id once it is on disk.

        Raises StoreFull, StoreBusy, StoreUnavailable, AccountsRemoved when an account has gone, or
        MaildropFilled when one has no room any more.
        """
        octets, in_memory = deposit.spool.octets, deposit.spool.in_memory
        if deposit.surrogate is not None:
            octets += deposit.surrogate.octets
            in_memory += deposit.surrogate.in_memory
        await self.disk.require(octets)
        self.disk.take(octets)
        return await self._writer.write(messages.deposit, deposit, octets=in_memory)

    # -- maildrops -------------------------------------------------------------------------------

    async def lock_maildrop(
        self, account_id: int, *, holder: str, login_delay_seconds: float | None = None
    ) -> MaildropLock:
        """Take the exclusive lock of RFC 1939 §4 or raise MaildropInUse; `holder` is for people to read.

        A login, and nobody else, says how long the one before it has to be ago (LoggedInLately).
        """
        return await self._locks.hold(account_id, holder=holder, login_delay_seconds=login_delay_seconds)

    def lock_maildrop_at_once(self, account_id: int, *, holder: str) -> MaildropLock | None:
        """The same for a login that needs no delay, without waiting; None where it has to be awaited."""
        return self._locks.hold_at_once(account_id, holder=holder, login_delay_seconds=0.0)

    def _tell_locks_lost(self) -> None:
        for tell in self.on_locks_lost:
            tell()

    async def open_maildrop(self, account_id: int) -> Snapshot:
        """The counters of one moment; they cost the same in a maildrop of any size."""
        return await self.read(messages.snapshot, account_id)

    def open_maildrop_at_once(self, account_id: int) -> Snapshot | None:
        """The same without waiting; None where it has to be awaited."""
        return self.read_at_once(messages.snapshot, account_id)

    async def layout(self, account_id: int, last_uid: int) -> Layout:
        """Where the pages of a snapshot begin."""
        return await self.read(listing.layout, account_id, last_uid)

    async def listing(
        self, account_id: int, last_uid: int, *, first_uid: int = 0, surrogates: bool = False
    ) -> Listing:
        """A page of a snapshot, or all; with `surrogates`, for a client that has not said UTF8."""
        return await self.read(
            listing.listing, account_id, last_uid, first_uid=first_uid, surrogates=surrogates
        )

    async def unique_ids(self, account_id: int, last_uid: int, *, first_uid: int = 0) -> UniqueIds:
        """The unique-ids of the same entries, in the listing's order."""
        return await self.read(listing.unique_ids, account_id, last_uid, first_uid=first_uid)

    def walk(self, account_id: int, last_uid: int, *, surrogates: bool = False) -> Walk:
        """A way through the messages of a snapshot; to be closed with the session."""
        return Walk(self._source, account_id, last_uid, surrogates=surrogates)

    async def expunge(self, account_id: int, uids: Sequence[int], *, lock: MaildropLock) -> None:
        """Remove the entries in one transaction, synced.

        Raises StoreUnavailable, with nothing removed, where the maildrop's lock is no longer held:
        another session may have begun, and been told of these messages.
        """
        if uids:
            job = Expunge(account_id, uids, self._removed_by, lock.backend)
            done = await self.write(removal.expunge, job, octets=_EXPUNGE_OCTETS * len(uids))
            if self._removed_by is None:
                self.leftovers.ask(done.octets)
                if self.disk.is_full():
                    self.leftovers.hurry()  # who deletes makes room for what is refused now
