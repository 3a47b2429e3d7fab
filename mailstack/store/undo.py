"""Removed entries that can still be brought back: what they are, how they return, when they are gone.

They lie in a table of their own, so that no listing, no quota and no session ever meets them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, literal, select

from mailstack.errors import NotFound
from mailstack.store import counters, events, removal
from mailstack.store.clock import moment, now
from mailstack.store.events import Kind
from mailstack.store.prepared import Prepared
from mailstack.store.runs import Runs
from mailstack.store.tables import account, entry, message, removed

_SLICE: Final = 500

_COLUMNS: Final = [column.name for column in entry.columns]


class Removed(NamedTuple):
    """One entry that can be brought back."""

    uid: int
    unique_id: str
    octets: int
    delivered_at: datetime
    removed_at: datetime
    removed_by: str
    reverse_path: str


def listed(connection: Connection, account_id: int) -> list[Removed]:
    """What can be brought back into a maildrop, in the order it had there."""
    rows = connection.execute(
        select(removed, message.c.reverse_path)
        .join(message, message.c.id == removed.c.message_id)
        .where(removed.c.account_id == account_id)
        .order_by(removed.c.uid)
    )
    return [
        Removed(
            row.uid,
            row.unique_id,
            row.octets,
            moment(row.delivered_at),
            moment(row.removed_at),
            row.removed_by,
            row.reverse_path,
        )
        for row in rows
    ]


def bring_back(
    connection: Connection, account_id: int, unique_ids: Iterable[str] | None = None
) -> list[Removed]:
    """Enter them again where they were, under their old unique-ids; None brings back all.

    The caller holds the maildrop's lock. Their age begins anew, or housekeeping would come for them
    at once. Raises NotFound.
    """
    connection.execute(select(account.c.id).where(account.c.id == account_id).with_for_update())
    found = listed(connection, account_id)
    if unique_ids is not None:
        wanted = set(unique_ids)
        if unknown := wanted - {each.unique_id for each in found}:
            raise NotFound(f"there is no removed message {', '.join(sorted(unknown))} in this maildrop")
        found = [each for each in found if each.unique_id in wanted]
    changed = {"delivered_at": literal(now()), "first_read_at": literal(None, entry.c.first_read_at.type)}
    for some in _slices([each.uid for each in found]):
        mine = (removed.c.account_id == account_id) & removed.c.uid.in_(some)
        columns: list[Any] = [changed.get(name, removed.c[name]) for name in _COLUMNS]
        connection.execute(insert(entry).from_select(_COLUMNS, select(*columns).where(mine)))
        connection.execute(delete(removed).where(mine))
    counters.recount(connection, account_id)
    uids = str(Runs.of(each.uid for each in found))
    events.add(connection, Kind.RESTORED, account_id, uids=uids, how="undone")
    return found


def give_up(connection: Connection, account_id: int, unique_ids: Sequence[str]) -> None:
    """What has these unique-ids, if anything, has come again and cannot be brought back any more."""
    wanted = select(removed.c.account_id, removed.c.uid, removed.c.message_id).where(
        removed.c.account_id == account_id, removed.c.unique_id.in_(unique_ids)
    )
    _forget(connection, connection.execute(wanted).all())


class Forget(NamedTuple):
    """A slice of what was removed by one of REMOVED_BY before a time, to go for good."""

    removed_by: str
    before: int


def forget(connection: Connection, jobs: Sequence[Forget]) -> list[int]:
    """Remove it, some at a time; return how much each job found, 0 where nothing is left."""
    gone = []
    for removed_by, before in jobs:
        wanted = select(removed.c.account_id, removed.c.uid, removed.c.message_id).where(
            removed.c.removed_at < before, removed.c.removed_by == removed_by
        )
        rows = connection.execute(wanted.order_by(removed.c.removed_at).limit(_SLICE)).all()
        _forget(connection, rows)
        gone.append(len(rows))
    return gone


def _forget(connection: Connection, rows: Sequence[Row[int, int, int]]) -> None:
    if not rows:
        return
    # One by one, by the key: for a list of pairs SQLite reads the whole table.
    _FORGET.run_many(connection, [(row.account_id, row.uid) for row in rows])
    removal.note(connection, [row.message_id for row in rows])
    uids: dict[int, Runs] = {}
    for row in sorted(rows, key=lambda row: row.uid):
        uids.setdefault(row.account_id, Runs()).add(row.uid)
    for account_id, runs in uids.items():
        events.add(connection, Kind.FORGOTTEN, account_id, uids=str(runs))


_FORGET = Prepared(
    delete(removed).where(removed.c.account_id == bindparam("account_id"), removed.c.uid == bindparam("uid")),
    "account_id",
    "uid",
)


def counted(connection: Connection, account_id: int) -> tuple[int, int]:
    """How many messages and octets can be brought back; no quota counts them."""
    row = connection.execute(
        select(func.count(), func.coalesce(func.sum(removed.c.octets), 0)).where(
            removed.c.account_id == account_id
        )
    ).one()
    return row[0], int(row[1])


def _slices(uids: Sequence[int]) -> Iterable[Sequence[int]]:
    return (uids[start : start + _SLICE] for start in range(0, len(uids), _SLICE))
