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
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy import Connection, text

from mailstack.errors import MaildropInUse, StoreUnavailable
from mailstack.store.engine import Database

_RECORD: Final = struct.Struct("=d120s")
"""One account's place in the lock file: since when it is held, and by whom."""

_FLOCK: Final = struct.Struct("@hhqqi4x")  # struct flock of fcntl(2), on 64-bit Linux
_NAMESPACE: Final = 0x706F70  # the first half of PostgreSQL's two-part advisory key: "pop"


HOUSEKEEPING: Final = 0
"""Instead of an account's id: the lock of whoever removes what belongs to nothing. Ids begin at 1."""


class MaildropLock:
    """A lock that is held, until `release`."""

    __slots__ = ("_release",)

    def __init__(self, release: Callable[[], None]) -> None:
        self._release: Callable[[], None] | None = release

    def release(self) -> None:
        """Let the maildrop go; a second call does nothing."""
        release, self._release = self._release, None
        if release is not None:
            release()


class MaildropLocks(Protocol):
    """What keeps two sessions out of one maildrop: a file on one host, the database across hosts."""

    async def hold(self, account_id: int, *, holder: str) -> MaildropLock:
        """Take the lock at once or raise MaildropInUse, saying since when and for whom it is held."""
        ...

    def close(self) -> None:
        """Let every lock go."""
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

    async def hold(self, account_id: int, *, holder: str) -> MaildropLock:
        """See MaildropLocks; never waits."""
        place = account_id * _RECORD.size
        # The kernel sees one owner in all of this process's sessions, so they keep apart by the set.
        if account_id in self._held or not self._set(fcntl.F_WRLCK, place):
            raise self._in_use(place)
        self._held.add(account_id)
        record = _RECORD.pack(time.time(), holder.encode()[:120])
        with suppress(OSError):  # on a full disk the lock holds, only its story is lost
            os.pwrite(self._file, record, place)
        return MaildropLock(lambda: self._let_go(account_id))

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

    def _in_use(self, place: int) -> MaildropInUse:
        record = os.pread(self._file, _RECORD.size, place)
        if len(record) < _RECORD.size:
            return MaildropInUse("another session holds this maildrop")
        since, holder = _RECORD.unpack(record)
        return _in_use(since, holder.rstrip(b"\0").decode(errors="replace"))


@dataclass(frozen=True, slots=True, eq=False)
class _Holder:
    since: float
    name: str


class AdvisoryLocks:
    """Exclusive among all hosts that share a PostgreSQL database: one connection holds them all.

    When that connection dies PostgreSQL frees its locks, so every session that relied on one must
    end: `lost` is called once, before the next lock is taken on a new connection.
    """

    def __init__(self, database: Database, lost: Callable[[], None]) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._held: dict[int, _Holder] = {}
        self._lost = lost
        self._turn = asyncio.Lock()  # one statement at a time on the one connection
        self._unlocking: set[asyncio.Task[None]] = set()

    async def hold(self, account_id: int, *, holder: str) -> MaildropLock:
        """See MaildropLocks; one round trip."""
        async with self._turn:
            if other := self._held.get(account_id):
                raise _in_use(other.since, other.name)
            if not await asyncio.to_thread(self._ask, "pg_try_advisory_lock", account_id):
                raise MaildropInUse("a session on another host, or of another process, holds this maildrop")
            mine = self._held[account_id] = _Holder(time.time(), holder)
            loop = asyncio.get_running_loop()
            return MaildropLock(lambda: self._let_go(loop, account_id, mine))

    def close(self) -> None:
        """Let every lock go."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    def _ask(self, function: str, account_id: int) -> bool:
        try:
            with self._database.translated():
                if self._connection is None:
                    self._connection = self._database.engine.connect().execution_options(
                        isolation_level="AUTOCOMMIT"
                    )
                answer = self._connection.execute(
                    text(f"SELECT {function}(:space, :account)"),
                    {"space": _NAMESPACE, "account": account_id},
                )
                return bool(answer.scalar_one())
        except StoreUnavailable:
            self.close()
            if self._held:
                self._held.clear()
                self._lost()
            raise

    def _let_go(self, loop: asyncio.AbstractEventLoop, account_id: int, mine: _Holder) -> None:
        async def unlock() -> None:
            async with self._turn:
                # A lock that was lost may be somebody else's by now: that one is not ours to free.
                if self._held.get(account_id) is mine:
                    try:
                        await asyncio.to_thread(self._ask, "pg_advisory_unlock", account_id)
                    except StoreUnavailable:
                        return  # the connection is gone, and its locks with it
                    self._held.pop(account_id, None)

        task = loop.create_task(unlock())
        self._unlocking.add(task)
        task.add_done_callback(self._unlocking.discard)


def _in_use(since: float, holder: str) -> MaildropInUse:
    at = datetime.fromtimestamp(since, UTC)
    return MaildropInUse(f"held since {at:%H:%M:%S} UTC by a session from {holder}")
