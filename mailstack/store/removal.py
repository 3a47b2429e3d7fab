"""Removing entries, and the messages that lose their last one: SQL as plain functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import BigInteger, Connection, Text, bindparam, delete, exists, insert, select, update

from mailstack.errors import StoreUnavailable
from mailstack.store import surrogate
from mailstack.store.clock import now
from mailstack.store.fetching import parts
from mailstack.store.locks import HELD
from mailstack.store.messages import numbering
from mailstack.store.prepared import Prepared, is_among, packed
from mailstack.store.tables import PARTS_A_MESSAGE, account, content, entry, message, removed


class Expunge(NamedTuple):
    """The entries that one session's QUIT, or one housekeeping run, removes from a maildrop."""

    account_id: int
    uids: Sequence[int]
    removed_by: str | None = None  # one of REMOVED_BY: they can be brought back for a while
    backend: int | None = None  # the PostgreSQL session that has to hold the maildrop's lock


def expunge(connection: Connection, jobs: Sequence[Expunge]) -> list[int]:
    """Remove entries, and each message that lost its last one; return how many each job removed."""
    numbering(connection, {job.account_id for job in jobs})  # one order for everybody, as in `deposit`
    counts = []
    touched: set[int] = set()
    for account_id, uids, removed_by, backend in jobs:
        if backend is not None and HELD.row(connection, account_id, backend) is None:
            raise StoreUnavailable("the lock of the maildrop was lost")
        numbers = packed(uids)
        found = _FOUND.rows(connection, account_id, numbers)
        if removed_by is None:
            touched.update(message_id for message_id, _, _ in found)
        else:
            _KEEP.run(connection, now(), removed_by, account_id, numbers)
        if connection.dialect.name == "postgresql":
            # Two hosts that remove a message's last two entries have to see each other.
            _HOLD.rows(connection, packed(message_id for message_id, _, _ in found))
        _DELETE_ENTRIES.run(connection, account_id, numbers)
        _SHRINK.run(connection, len(found), sum(octets for _, octets, _ in found), account_id)
        surrogates = [in_ascii - octets for _, octets, in_ascii in found if in_ascii is not None]
        if surrogates:
            surrogate.COUNT.run(connection, -len(surrogates), -sum(surrogates), account_id)
        counts.append(len(found))
    remove_orphans(connection, touched)
    return counts


def remove_orphans(connection: Connection, message_ids: Iterable[int]) -> int:
    """Remove those of the messages that no entry points to, not even a removed one; return how many."""
    orphans = _ORPHANS.rows(connection, packed(message_ids))
    if surrogates := [surrogate_id for _, _, surrogate_id in orphans if surrogate_id is not None]:
        orphans += surrogate.FOUND.rows(connection, packed(surrogates))
    content_ids = [
        number * PARTS_A_MESSAGE + n for number, octets, _ in orphans for n in range(parts(octets))
    ]
    _DELETE_CONTENT.run(connection, packed(content_ids))
    _DELETE_MESSAGES.run(connection, packed(number for number, _, _ in orphans))
    return len(orphans)


_MINE = (entry.c.account_id == bindparam("account_id")) & is_among(entry.c.uid, "uids")
_FOUND = Prepared(
    select(entry.c.message_id, entry.c.octets, entry.c.surrogate_octets).where(_MINE), "account_id", "uids"
)
_HOLD = Prepared(
    select(message.c.id).where(is_among(message.c.id, "ids")).order_by(message.c.id).with_for_update(),
    "ids",
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
_SHRINK = Prepared(
    update(account)
    .where(account.c.id == bindparam("key"))
    .values(messages=account.c.messages - bindparam("fewer"), octets=account.c.octets - bindparam("total")),
    "fewer",
    "total",
    "key",
)
_ORPHANS = Prepared(
    select(message.c.id, message.c.octets, message.c.surrogate_id).where(
        is_among(message.c.id, "ids"),
        ~exists().where(entry.c.message_id == message.c.id),
        ~exists().where(removed.c.message_id == message.c.id),
    ),
    "ids",
)
_DELETE_CONTENT = Prepared(delete(content).where(is_among(content.c.id, "ids")), "ids")
_DELETE_MESSAGES = Prepared(delete(message).where(is_among(message.c.id, "ids")), "ids")
