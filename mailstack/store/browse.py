"""Maildrops as an administrator reads them: entry by entry, without a session and without the lock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from mailstack.errors import NotFound
from mailstack.mail import unique_id as unique_ids
from mailstack.store import digests, fetching
from mailstack.store.clock import moment
from mailstack.store.engine import Database
from mailstack.store.parts import parts_in
from mailstack.store.tables import IS_FOREIGN, entry, message

_PAGE = 1000


class Entry(NamedTuple):
    """One line of a maildrop."""

    uid: int
    unique_id: str
    octets: int
    delivered_at: datetime
    reverse_path: str  # empty for the null reverse-path of RFC 5321 §4.5.5
    mail_id: str  # what the sender was told with 250


class Span(NamedTuple):
    """When the oldest and the newest message of a maildrop came."""

    oldest: datetime | None
    newest: datetime | None


def entries(
    connection: Connection, account_id: int, *, after: int = 0, most: int | None = None
) -> list[Entry]:
    """A maildrop's entries behind the uid `after`, in order."""
    rows = connection.execute(
        select(
            entry.c.uid,
            entry.c.unique_id,
            entry.c.octets,
            entry.c.delivered_at,
            message.c.reverse_path,
            message.c.mail_id,
        )
        .join(message, message.c.id == entry.c.message_id)
        .where(entry.c.account_id == account_id, entry.c.uid > after)
        .order_by(entry.c.uid)
        .limit(most)
    )
    return [
        Entry(row.uid, row.unique_id, row.octets, moment(row.delivered_at), row.reverse_path, row.mail_id)
        for row in rows
    ]


def there(connection: Connection, account_id: int, wanted: Sequence[str]) -> set[str]:
    """Those of the unique-ids that entries of the maildrop have."""
    found: set[str] = set()
    mine = select(entry.c.unique_id).where(entry.c.account_id == account_id, entry.c.unique_id.in_(wanted))
    uids = [uid for uid in map(unique_ids.uid_at_end, wanted) if uid is not None]
    for way in (IS_FOREIGN, entry.c.uid.in_(uids)):  # by the index of those, and by the key
        found.update(connection.execute(mine.where(way)).scalars())
    return found


def walk(database: Database, account_id: int) -> Iterator[Entry]:
    """All entries, a page a transaction: an export of a day keeps nothing of the database busy."""
    after = 0
    while True:
        with database.reading() as connection:
            page = entries(connection, account_id, after=after, most=_PAGE)
        if not page:
            return
        yield from page
        after = page[-1].uid


def span(connection: Connection, account_id: int) -> Span:
    """The times of the oldest and the newest entry."""
    oldest, newest = connection.execute(
        select(func.min(entry.c.delivered_at), func.max(entry.c.delivered_at)).where(
            entry.c.account_id == account_id
        )
    ).one()
    return Span(None if oldest is None else moment(oldest), None if newest is None else moment(newest))


def find_entry(connection: Connection, account_id: int, unique_id: str) -> int:
    """The uid of the entry with this unique-id, or NotFound."""
    uid: int | None = connection.execute(
        select(entry.c.uid).where(entry.c.account_id == account_id, entry.c.unique_id == unique_id)
    ).scalar_one_or_none()
    if uid is None:
        raise NotFound(f"there is no message {unique_id} in this maildrop")
    return uid


def octets_of(database: Database, account_id: int, uid: int) -> Iterator[bytes]:
    """A message as RETR sends it, unstuffed, some parts a transaction; MessageGone where it is not whole."""
    with database.reading() as connection:
        opened = fetching.open_message(connection, account_id, uid)
    yield from opened.first
    sent = sum(map(len, opened.first))
    for number in range(1, parts_in(opened.content_octets), fetching.PARTS_A_STEP):
        with database.reading() as connection:
            pieces = fetching.step(connection, opened, number)
        sent += sum(map(len, pieces))
        yield from pieces
    if sent != opened.octets:
        raise digests.damaged(opened.message_id)
