"""Which messages a maildrop should no longer keep, and when one was first read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, false, func, or_, select, update

from mailstack.store.clock import SECOND
from mailstack.store.limits import Limits
from mailstack.store.prepared import Prepared
from mailstack.store.tables import entry

SLICE: Final = 500
"""How many entries one transaction removes."""


class Read(NamedTuple):
    """A run of entries that were downloaded."""

    account_id: int
    first_uid: int
    last_uid: int
    at: int


class Doomed(NamedTuple):
    """What a maildrop should no longer keep."""

    messages: int
    octets: int


def mark_read(connection: Connection, jobs: Sequence[Sequence[Read]]) -> list[None]:
    """Note when messages were first downloaded; the first time stays."""
    _MARK_READ.run_many(connection, [each for job in jobs for each in job])
    return [None] * len(jobs)


def count(connection: Connection, account_id: int, limits: Limits, at: int) -> Doomed:
    """How much mail of a maildrop is beyond its limits at this time."""
    row = connection.execute(
        select(func.count(), func.coalesce(func.sum(entry.c.octets), 0)).where(
            _beyond(connection, account_id, limits, at)
        )
    ).one()
    return Doomed(row[0], int(row[1]))


def doomed(connection: Connection, account_id: int, limits: Limits, at: int) -> Mapping[int, int]:
    """Some of the entries beyond the limits, oldest first: uid and octets."""
    rows = connection.execute(
        select(entry.c.uid, entry.c.octets)
        .where(_beyond(connection, account_id, limits, at))
        .order_by(entry.c.uid)
        .limit(SLICE)
    )
    return {row.uid: row.octets for row in rows}


def _beyond(connection: Connection, account_id: int, limits: Limits, at: int) -> ColumnElement[bool]:
    mine = entry.c.account_id == account_id
    reasons: list[ColumnElement[bool]] = [false()]
    if limits.keep_seconds is not None:
        reasons.append(entry.c.delivered_at <= at - limits.keep_seconds * SECOND)
    if limits.keep_read_seconds is not None:
        reasons.append(entry.c.first_read_at <= at - limits.keep_read_seconds * SECOND)
    if limits.keep_messages is not None:
        newest_too_many = connection.execute(
            select(entry.c.uid).where(mine).order_by(entry.c.uid.desc()).offset(limits.keep_messages).limit(1)
        ).scalar_one_or_none()
        if newest_too_many is not None:
            reasons.append(entry.c.uid <= newest_too_many)
    return mine & or_(*reasons)


_MARK_READ: Final = Prepared(
    update(entry)
    .where(
        entry.c.account_id == bindparam("account"),
        entry.c.uid.between(bindparam("first"), bindparam("last")),
        entry.c.first_read_at.is_(None),
    )
    .values(first_read_at=bindparam("at")),
    "account",
    "first",
    "last",
    "at",
)
