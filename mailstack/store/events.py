"""What happened to mail, a row a finished transaction or session: what `mailstack trace` tells.

The row of an accepted message is committed with the message. What happens to it later (refusals and
sessions change nothing, or have been committed already) is gathered in memory and written a moment
later, for many at once: a crash may forget the last seconds of it, never a message.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, delete, insert, select

from mailstack import log
from mailstack.errors import MailstackError
from mailstack.store.clock import now
from mailstack.store.later import Later
from mailstack.store.prepared import Prepared
from mailstack.store.tables import event
from mailstack.store.writer import Writer
from mailstack.values import DAY_SECONDS

KEEP_SECONDS: Final = 30 * DAY_SECONDS
_SECONDS: Final = 2.0
_AT_MOST: Final = 10_000
_OCTETS: Final = 16 * 1024 * 1024
"""So many events, or octets of them, wait in memory at most while the database takes none."""

_SLICE: Final = 500


class Kind(StrEnum):
    """What it is that has happened."""

    ACCEPTED = "accepted"  # a message is in its recipients' maildrops
    REFUSED = "refused"  # a message, or recipients of one, are not
    SESSION = "session"  # a session has downloaded or deleted
    REMOVED = "removed"  # by housekeeping, or with its account
    FORGOTTEN = "forgotten"  # what was removed cannot be brought back any more
    RESTORED = "restored"  # is back in its maildrop
    IMPORTED = "imported"  # came in files, from another server


class Row(NamedTuple):
    """One event as the table has it."""

    at: int
    name: str
    kind: str
    about: str
    told: str

    @classmethod
    def of(cls, at: int, name: str, kind: Kind, about: Iterable[str], told: dict[str, Any]) -> Row:
        """An event from its parts: `about` is what it can be found by, `told` all there is to know."""
        if None in told.values():
            told = {key: value for key, value in told.items() if value is not None}
        found = "\n".join(about).casefold()
        # The driver knows str better than Kind.
        return cls(at, name, str(kind), f"\n{found}\n", _written(told))

    def entered(self, entries: Sequence[tuple[int, int]]) -> Row:
        """The same, which also tells by account and uid what entries a message has got."""
        at, name, kind, about, told = self
        if len(entries) == 1:  # nearly always
            ((account_id, uid),) = entries
            marks, pairs = f"#{account_id}\n", f"[{account_id},{uid}]"
        else:
            marks = "".join([f"{account_mark(account_id)}\n" for account_id, _ in entries])
            pairs = ",".join([f"[{account_id},{uid}]" for account_id, uid in entries])
        return Row(at, name, kind, about + marks, f'{told[:-1]},"entries":[{pairs}]}}')


def account_mark(account_id: int) -> str:
    """How `about` names an account, which may get another address."""
    return f"#{account_id}"


_written: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def add(connection: Connection, kind: Kind, account_id: int, **told: Any) -> None:
    """Tell, in the transaction of what has happened, about a maildrop."""
    about = (account_mark(account_id), str(told.get("account") or ""))
    write(connection, [[Row.of(now(), log.new_session_id(), kind, about, told | {"account_id": account_id})]])


def write(connection: Connection, jobs: Sequence[Sequence[Row]]) -> list[None]:
    """Write all rows of all jobs."""
    INSERT.run_many(connection, [each for job in jobs for each in job])
    return [None] * len(jobs)


INSERT: Final = Prepared(insert(event), *Row._fields)


def forget(connection: Connection, jobs: Sequence[int]) -> list[int]:
    """Remove a slice of what is older than each job's time; return how many, 0 where nothing is left."""
    gone = []
    for before in jobs:
        first = connection.execute(select(event.c.id, event.c.at).order_by(event.c.id).limit(_SLICE)).all()
        # Rows are nearly in the order of time; what stands behind a younger one goes with that.
        ids = [row.id for row in first if row.at < before]
        if ids:
            connection.execute(delete(event).where(event.c.id.in_(ids)))
        gone.append(len(ids))
    return gone


def _octets(row: Row) -> int:
    return len(row.about) + len(row.told)


class Journal:
    """Gathers events on the event loop; one write in _SECONDS at most, and none while nothing happens."""

    def __init__(self, writer: Writer, *, kept: bool) -> None:
        """Where events are not `kept` at all, nothing is written."""
        self.kept: Final = kept
        self._writer = writer
        self._last = 0
        self._waiting: list[Row] = []
        self._octets = 0  # of those that wait
        self._lost = 0
        self._later = Later(self.flush, _SECONDS, wants_more=lambda: bool(self._waiting))

    def row(self, name: str, kind: Kind, about: Iterable[str], told: dict[str, Any]) -> Row:
        """An event of this moment, for whoever writes it in a transaction of theirs."""
        self._last = max(self._last + 1, now())  # no two rows of a process have the same time
        return Row.of(self._last, name, kind, about, told)

    def note(self, name: str, kind: Kind, about: Iterable[str], **told: Any) -> None:
        """Have an event written soon; beyond a bound in memory it is lost, and the log says how many."""
        if not self.kept:
            return
        if len(self._waiting) >= _AT_MOST or self._octets >= _OCTETS:
            self._lost += 1
            return
        row = self.row(name, kind, about, told)
        self._waiting.append(row)
        self._octets += _octets(row)
        self._later.ask()

    async def flush(self) -> None:
        """Write what is known now; where that fails it waits for the next time."""
        waiting, self._waiting = self._waiting, []
        octets, self._octets = self._octets, 0
        lost, self._lost = self._lost, 0
        if lost:
            log.event("events lost", level=logging.WARNING, number=lost)
        if not waiting:
            return
        try:
            await self._writer.write(write, waiting, octets=octets)
        except MailstackError:
            self._keep(waiting + self._waiting)
            raise

    def _keep(self, rows: Sequence[Row]) -> None:
        """Have the oldest of these wait, as many as may."""
        self._waiting, self._octets = [], 0
        for each in rows[:_AT_MOST]:
            if self._octets >= _OCTETS:
                break
            self._waiting.append(each)
            self._octets += _octets(each)
        self._lost += len(rows) - len(self._waiting)

    async def close(self) -> None:
        """Write the last ones."""
        await self._later.close()
