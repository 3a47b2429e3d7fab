"""Removing entries: SQL as plain functions `f(connection, ...)`.

What a message holds goes later, by `leftovers`: here it is only noted that it lost an entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import BigInteger, Connection, Text, bindparam, delete, insert, select

from mailstack.errors import StoreUnavailable
from mailstack.store import counters
from mailstack.store.advisory_locks import HELD
from mailstack.store.clock import now
from mailstack.store.messages import numbering
from mailstack.store.prepared import Prepared, is_among, packed
from mailstack.store.tables import entry, leftover, removed


class Expunge(NamedTuple):
    """The entries that one session's QUIT, or one housekeeping run, removes from a maildrop."""

    account_id: int
    uids: Sequence[int]
    removed_by: str | None = None  # one of REMOVED_BY: they can be brought back for a while
    backend: int | None = None  # the PostgreSQL session that has to hold the maildrop's lock


class Expunged(NamedTuple):
    """What a job has removed."""

    messages: int
    octets: int


def expunge(connection: Connection, jobs: Sequence[Expunge]) -> list[Expunged]:
    """Remove entries, and note which messages lost one; return what each job removed."""
    if connection.dialect.name == "postgresql":
        numbering(connection, {job.account_id for job in jobs})  # one order for everybody, as in `deposit`
    done = []
    for account_id, uids, removed_by, backend in jobs:
        if backend is not None and HELD.row(connection, account_id, backend) is None:
            raise StoreUnavailable("the lock of the maildrop was lost")
        numbers = packed(uids)
        ((count, octets, surrogates, in_ascii),) = _SUMS.rows(connection, account_id, numbers)
        if removed_by is None:
            _NOTE_ENTRIES.run(connection, account_id, numbers)
        else:
            _KEEP.run(connection, now(), removed_by, account_id, numbers)
        _DELETE_ENTRIES.run(connection, account_id, numbers)
        counters.ADD.run(connection, 0, -count, -octets, -surrogates, -in_ascii, account_id)
        done.append(Expunged(count, octets))
    return done


def note(connection: Connection, message_ids: Iterable[int]) -> None:
    """Note that these messages lost an entry, in the transaction in which they do."""
    _NOTE.run_many(connection, [(number,) for number in message_ids])


_MINE = (entry.c.account_id == bindparam("account_id")) & is_among(entry.c.uid, "uids")
_SUMS = Prepared(select(*counters.SUMS).where(_MINE), "account_id", "uids")
_NOTE = Prepared(insert(leftover), "message_id")
_NOTE_ENTRIES = Prepared(
    insert(leftover).from_select(["message_id"], select(entry.c.message_id).where(_MINE)),
    "account_id",
    "uids",
)
_KEEP = Prepared(
    insert(removed).from_select(
        [*(column.name for column in entry.columns), "removed_at", "removed_by"],
        select(
            *entry.columns,
            bindparam("removed_at", type_=BigInteger),
            bindparam("removed_by", type_=Text),
        ).where(_MINE),
    ),
    "removed_at",
    "removed_by",
    "account_id",
    "uids",
)
_DELETE_ENTRIES = Prepared(delete(entry).where(_MINE), "account_id", "uids")
