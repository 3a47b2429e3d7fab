"""The exclusive lock of a maildrop (RFC 1939 §4), which the kernel or the database frees by itself.

A lock that outlives its session is what users of POP3 curse most. Here nothing is written that
would have to be cleaned up: a process that dies, however it dies, has let go.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Executable,
    Integer,
    bindparam,
    func,
    literal_column,
    select,
    text,
)

from mailstack.errors import LoggedInLately, MaildropInUse, StoreUnavailable
from mailstack.store.engine import Database
from mailstack.store.prepared import Prepared
from mailstack.store.tables import maildrop_holder

_RECORD: Final = struct.Struct("=dd112s")
"""One account's place in the lock file: since when it is held, its last login, and by whom."""

_FLOCK: Final = struct.Struct("@hhqqi4x")  # struct flock of fcntl(2), on 64-bit Linux

ADVISORY_SPACE: Final = 0x706F70
"""The first half of PostgreSQL's two-part advisory key: "pop"; the second is the account."""


class Holding(NamedTuple):
    """What is kept of a maildrop's last holder, in seconds since the epoch; zeros: nothing is known."""

    since: float
    logged_in: float
    holder: str

    def after(self, holder: str, *, login: bool) -> Holding:
        """What is to be kept once `holder` has it; whoever only keeps house is no login."""
        now = time.time()
        return Holding(now, now if login else self.logged_in, holder)

    def check_delay(self, seconds: float) -> None:
        """Raise LoggedInLately unless the last login was so long ago."""
        passed = time.time() - self.logged_in
        if 0 <= passed < seconds:  # a clock that was set back keeps nobody out
            raise LoggedInLately(
                f"the last login was {passed:.0f} seconds ago, wait {seconds - passed:.0f} more"
            )

    def in_use(self) -> MaildropInUse:
        """The refusal that says since when and from where."""
        if not self.since:
            return MaildropInUse("another session holds this maildrop")
        at = datetime.fromtimestamp(self.since, UTC)
        return MaildropInUse(f"held since {at:%H:%M:%S} UTC by a session from {self.holder}")


_NOBODY: Final = Holding(0.0, 0.0, "")


HOUSEKEEPING: Final = 0
"""Instead of an account's id: the lock of whoever removes what belongs to nothing. Ids begin at 1."""


class MaildropLock:
    """A lock that is held, until `release`."""

    __slots__ = ("_freeing", "_release", "backend")

    def __init__(
        self, release: Callable[[], asyncio.Task[None] | None], *, backend: int | None = None
    ) -> None:
        self._release: Callable[[], asyncio.Task[None] | None] | None = release
        self._freeing: asyncio.Task[None] | None = None
        self.backend: Final = backend
        """The PostgreSQL session that has the lock; None: the kernel has it, and frees it at once."""

    def release(self) -> None:
        """Let the maildrop go; a second call does nothing."""
        release, self._release = self._release, None
        if release is not None:
            self._freeing = release()

    async def released(self) -> None:
        """Let the maildrop go, and wait until whoever comes next can have it."""
        self.release()
        if self._freeing is not None:
            await asyncio.shield(self._freeing)


class MaildropLocks(Protocol):
    """What keeps two sessions out of one maildrop: a file on one host, the database across hosts."""

    async def hold(
        self, account_id: int, *, holder: str, login_delay_seconds: float | None = None
    ) -> MaildropLock:
        """Take the lock at once or raise MaildropInUse, saying since when and for whom it is held.

        A login says how long the one before it has to be ago, or else raises LoggedInLately; with
        None this is no login.
        """
        ...

    def hold_at_once(
        self, account_id: int, *, holder: str, login_delay_seconds: float | None = None
    ) -> MaildropLock | None:
        """The same where nobody has to be waited for; None where it takes `hold`."""
        ...

    async def settled(self) -> None:
        """Wait until whatever is being let go is free."""
        ...

    def close(self) -> None:
        """Let every lock go; nothing may be under way."""
        ...


class FileLocks:
    """Exclusive among the threads and processes of one host: a locked range of one file an account.

    The locks belong to the open file (F_OFD_SETLK): the kernel drops them with the process.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(f"cannot open the lock file {path}: {error.strerror}") from error
        self._held: set[int] = set()

    async def hold(
        self, account_id: int, *, holder: str, login_delay_seconds: float | None = None
    ) -> MaildropLock:
        """See MaildropLocks; never waits."""
        return self.hold_at_once(account_id, holder=holder, login_delay_seconds=login_delay_seconds)

    def hold_at_once(
        self, account_id: int, *, holder: str, login_delay_seconds: float | None = None
    ) -> MaildropLock:
        """See MaildropLocks."""
        place = account_id * _RECORD.size
        # The kernel sees one owner in all of this process's sessions, so they keep apart by the set.
        if account_id in self._held or not self._set(fcntl.F_WRLCK, place):
            raise self._kept(place).in_use()
        before = _NOBODY
        try:
            if login_delay_seconds != 0.0:  # else nobody asks for the last login
                before = self._kept(place)
                before.check_delay(login_delay_seconds or 0.0)
        except BaseException:
            self._set(fcntl.F_UNLCK, place)
            raise
        self._held.add(account_id)
        since, logged_in, name = before.after(holder, login=login_delay_seconds is not None)
        with suppress(OSError):  # on a full disk the lock holds, only its story is lost
            os.pwrite(self._file, _RECORD.pack(since, logged_in, name.encode()[:112]), place)
        return MaildropLock(lambda: self._let_go(account_id))

    async def settled(self) -> None:
        """See MaildropLocks; the kernel is quick."""

    def close(self) -> None:
        """Let every lock go."""
        os.close(self._file)
        self._held.clear()

    def _let_go(self, account_id: int) -> None:
        if account_id in self._held:
            self._held.discard(account_id)
            self._set(fcntl.F_UNLCK, account_id * _RECORD.size)

    def _set(self, kind: int, place: int) -> bool:
        request = _FLOCK.pack(kind, os.SEEK_SET, place, _RECORD.size, 0)
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, request)
        except BlockingIOError:
            return False
        except OSError as error:
            raise StoreUnavailable(f"the maildrop cannot be locked: {error.strerror}") from error
        return True

    def _kept(self, place: int) -> Holding:
        record = os.pread(self._file, _RECORD.size, place)
        if len(record) < _RECORD.size:
            return _NOBODY
        since, logged_in, holder = _RECORD.unpack(record)
        return Holding(since, logged_in, holder.rstrip(b"\0").decode(errors="replace"))


@dataclass(frozen=True, slots=True, eq=False)
class _Mine:
    holding: Holding


class AdvisoryLocks:
    """Exclusive among all hosts that share a PostgreSQL database: one connection holds them all.

    When that connection dies PostgreSQL frees its locks, so every session that relied on one must
    end: `lost` is called once, before the next lock is taken on a new connection. Who holds what
    lies in an UNLOGGED table, and no commit of this connection waits for the disk.
    """

    def __init__(self, database: Database, lost: Callable[[], None]) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._backend = 0
        self._held: dict[int, _Mine] = {}
        self._lost = lost
        self._turn = asyncio.Lock()  # one statement at a time on the one connection
        self._unlocking: set[asyncio.Task[None]] = set()

    async def hold(
        self, account_id: int, *, holder: str, login_delay_seconds: float | None = None
    ) -> MaildropLock:
        """See MaildropLocks; two round trips."""
        async with self._turn:
            if other := self._held.get(account_id):
                raise other.holding.in_use()
            holding = await asyncio.to_thread(self._take, account_id, holder, login_delay_seconds)
            mine = self._held[account_id] = _Mine(holding)
            loop = asyncio.get_running_loop()
            return MaildropLock(lambda: self._let_go(loop, account_id, mine), backend=self._backend)

    def hold_at_once(self, account_id: int, *, holder: str, login_delay_seconds: float | None = None) -> None:
        """See MaildropLocks; a server is always waited for."""

    async def settled(self) -> None:
        """See MaildropLocks."""
        while self._unlocking:
            await asyncio.wait(self._unlocking)

    def close(self) -> None:
        """Let every lock go. A thread that still used the connection would wait for its answer for ever."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    # -- on a thread -----------------------------------------------------------------------------

    def _take(self, account_id: int, holder: str, login_delay_seconds: float | None) -> Holding:
        locked, *kept = self._tried(account_id)
        since, logged_in, name = kept
        before = Holding((since or 0) / 1e6, (logged_in or 0) / 1e6, name or "")
        if not locked:
            raise before.in_use()
        try:
            before.check_delay(login_delay_seconds or 0.0)
        except LoggedInLately:
            self._run(_UNLOCK, account_id=account_id)
            raise
        now = before.after(holder, login=login_delay_seconds is not None)
        self._run(
            _keep(),
            account_id=account_id,
            since=int(now.since * 1e6),
            logged_in_at=int(now.logged_in * 1e6),
            holder=holder,
        )
        return now

    def _tried(self, account_id: int) -> Any:
        """The row of _TRY. A kept connection may be dead since a restart that is over: then on a new one."""
        kept = self._connection
        try:
            return self._run(_TRY, account_id=account_id)
        except StoreUnavailable:
            if kept is None:
                raise
        return self._run(_TRY, account_id=account_id)

    def _run(self, statement: Any, **parameters: object) -> Any:
        """One statement on the connection of the locks; its one row."""
        try:
            with self._database.translated():
                return self._connected().execute(statement, parameters).one()
        except StoreUnavailable:
            self.close()
            if self._held:
                self._held.clear()
                self._lost()
            raise

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._database.engine.connect()
            try:
                self._connection.execution_options(isolation_level="AUTOCOMMIT")
                self._connection.exec_driver_sql("SET synchronous_commit = off")
                self._backend = self._connection.execute(select(func.pg_backend_pid())).scalar_one()
            except BaseException:
                self.close()  # whoever got it from the pool would not wait for the disk either
                raise
        return self._connection

    # -- on the event loop -----------------------------------------------------------------------

    def _let_go(self, loop: asyncio.AbstractEventLoop, account_id: int, mine: _Mine) -> asyncio.Task[None]:
        async def unlock() -> None:
            async with self._turn:
                # A lock that was lost may be somebody else's by now: that one is not ours to free.
                if self._held.get(account_id) is mine:
                    try:
                        await asyncio.to_thread(self._run, _UNLOCK, account_id=account_id)
                    except StoreUnavailable:
                        return  # the connection is gone, and its locks with it
                    self._held.pop(account_id, None)

        task = loop.create_task(unlock())
        self._unlocking.add(task)
        task.add_done_callback(self._unlocking.discard)
        return task


@cache
def _keep() -> Executable:
    """The INSERT of a maildrop's holder, in the place of the one before; its one row is of no interest."""
    from sqlalchemy.dialects.postgresql import insert  # 3 MiB, which a process on SQLite is spared

    given = insert(maildrop_holder)
    return given.on_conflict_do_update(
        index_elements=["account_id"],
        set_={name: given.excluded[name] for name in ("since", "logged_in_at", "holder")},
    ).returning(maildrop_holder.c.account_id)


_SPACE: Final[ColumnElement[int]] = literal_column(str(ADVISORY_SPACE))
_ID: Final = bindparam("account_id", type_=maildrop_holder.c.account_id.type)
_ONE: Final = select(func.pg_try_advisory_lock(_SPACE, _ID).label("locked")).subquery("one")
_TRY: Final = select(
    _ONE.c.locked, maildrop_holder.c.since, maildrop_holder.c.logged_in_at, maildrop_holder.c.holder
).select_from(_ONE.outerjoin(maildrop_holder, maildrop_holder.c.account_id == _ID))
_UNLOCK: Final = select(func.pg_advisory_unlock(_SPACE, _ID))
# A lock of one database is another's lock, too, in this view.
HELD: Final = Prepared(
    select(literal_column("1"))
    .select_from(text("pg_locks"))
    .where(
        text("locktype = 'advisory' AND granted AND objsubid = 2"),
        text("database = (SELECT oid FROM pg_database WHERE datname = current_database())"),
        text(f"classid = {ADVISORY_SPACE}"),
        literal_column("objid", BigInteger) == bindparam("account_id", type_=BigInteger),
        literal_column("pid", Integer) == bindparam("backend", type_=Integer),
    ),
    "account_id",
    "backend",
)
"""One row where that PostgreSQL session has the lock of that account."""
