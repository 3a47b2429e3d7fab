"""The maildrop locks across hosts, which PostgreSQL keeps: one connection holds all those of a process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any, Final

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

from mailstack.errors import LoggedInLately, StoreUnavailable
from mailstack.store.engine import Database
from mailstack.store.locks import Holding, MaildropLock
from mailstack.store.prepared import Prepared
from mailstack.store.tables import maildrop_holder

ADVISORY_SPACE: Final = 0x706F70
"""The first half of PostgreSQL's two-part advisory key: "pop"; the second is the account."""


class AdvisoryLocks:
    """Exclusive among all hosts that share a database.

    When that connection dies PostgreSQL frees its locks, so every session that relied on one must
    end: `lost` is called once, before the next lock is taken on a new connection. Who holds what
    lies in an UNLOGGED table, and no commit of this connection waits for the disk.
    """

    def __init__(self, database: Database, lost: Callable[[], None]) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._backend = 0
        self._held: dict[int, Holding] = {}
        self._lost = lost
        self._turn = asyncio.Lock()  # one statement at a time on the one connection
        self._unlocking: set[asyncio.Task[None]] = set()

    async def hold(
        self, account_id: int, *, holder: str, login_delay_seconds: float | None = None
    ) -> MaildropLock:
        """See MaildropLocks; two round trips."""
        async with self._turn:
            if other := self._held.get(account_id):
                raise other.in_use()
            mine = await asyncio.to_thread(self._take, account_id, holder, login_delay_seconds)
            self._held[account_id] = mine
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

    def _let_go(self, loop: asyncio.AbstractEventLoop, account_id: int, mine: Holding) -> asyncio.Task[None]:
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
