"""Messages and maildrop entries: SQL as plain functions `f(connection, ...)`.

The two that write, `deposit` and `expunge`, are set-wise: they take every job of a batch at once,
so that the number of statements does not grow with the number of messages.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, bindparam, delete, exists, func, insert, select, text, update

from mailstack.errors import MessageGone, NoSuchMailbox
from mailstack.mail.spool import PART_OCTETS, Spool
from mailstack.store.tables import PARTS_A_MESSAGE, account, content, entry, message

_MANY = 500
"""How many values one IN (...) holds: few enough for the statement to be prepared once and reused."""

_INSERT_OCTETS = 4 * 1024 * 1024
"""How much content one executemany carries: a 50 MB message must not be in memory a second time."""

T = TypeVar("T")


class Recipient(NamedTuple):
    """One maildrop that a message goes to, and the trace octets that only this entry carries."""

    account_id: int
    prefix: bytes


class Deposit(NamedTuple):
    """One accepted mail object (RFC 5321 §2.3.1), ready to be stored."""

    mail_id: str
    reverse_path: str
    spool: Spool
    dotted: bool
    recipients: tuple[Recipient, ...]
    at: int  # microseconds since the epoch


class Expunge(NamedTuple):
    """The entries that one session's QUIT, or one housekeeping run, removes from a maildrop."""

    account_id: int
    uids: Sequence[int]


class Snapshot(NamedTuple):
    """A maildrop at the moment of login: what STAT says, and where new mail begins."""

    messages: int
    octets: int
    last_uid: int


class Listing(NamedTuple):
    """A maildrop's entries in order, a column an array: message n is at index n - 1."""

    uids: array[int]
    octets: array[int]
    messages: array[int]


class Opened(NamedTuple):
    """An entry found, with its first octets: prefix and first part."""

    message_id: int
    octets: int  # of prefix and content together
    content_octets: int
    dotted: bool
    first: bytes


# -- deposit -------------------------------------------------------------------------------------


class _Account(NamedTuple):
    next_uid: int
    uid_validity: int


def deposit(connection: Connection, deposits: Sequence[Deposit]) -> list[int]:
    """Store each message once and enter it in every recipient's maildrop; return the message ids.

    Raises NoSuchMailbox when an account was removed since RCPT.
    """
    accounts = _numbering(connection, {r.account_id for d in deposits for r in d.recipients})
    ids = _new_message_ids(connection, len(deposits))
    connection.execute(
        insert(message),
        [
            {
                "id": number,
                "octets": d.spool.octets,
                "dotted": d.dotted,
                "reverse_path": d.reverse_path,
                "received_at": d.at,
                "mail_id": d.mail_id,
            }
            for number, d in zip(ids, deposits, strict=True)
        ],
    )
    for rows in _bundles(_content_rows(ids, deposits)):
        connection.execute(insert(content), rows)
    entries: list[dict[str, Any]] = []
    growth: dict[int, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for number, d in zip(ids, deposits, strict=True):
        for recipient in d.recipients:
            key = recipient.account_id
            octets = len(recipient.prefix) + d.spool.octets
            numbering = accounts.get(key)
            if numbering is None:
                raise NoSuchMailbox("the account was removed while its mail was on the way")
            messages, total = growth[key]
            uid = numbering.next_uid + messages
            growth[key] = (messages + 1, total + octets)
            entries.append(
                {
                    "account_id": key,
                    "uid": uid,
                    "unique_id": f"{numbering.uid_validity}.{uid}",
                    "message_id": number,
                    "octets": octets,
                    "prefix": recipient.prefix,
                    "delivered_at": d.at,
                }
            )
    connection.execute(insert(entry), entries)
    connection.execute(
        _GROW,
        [{"key": key, "more": messages, "total": total} for key, (messages, total) in sorted(growth.items())],
    )
    return ids


_GROW = (
    update(account)
    .where(account.c.id == bindparam("key"))
    .values(
        next_uid=account.c.next_uid + bindparam("more"),
        messages=account.c.messages + bindparam("more"),
        octets=account.c.octets + bindparam("total"),
    )
)


def _numbering(connection: Connection, ids: Iterable[int]) -> dict[int, _Account]:
    """The accounts' next numbers, locked in one order so that two batches cannot wait for each other."""
    return {
        row.id: _Account(row.next_uid, row.uid_validity)
        for some in _slices(sorted(ids))
        for row in connection.execute(
            select(account.c.id, account.c.next_uid, account.c.uid_validity)
            .where(account.c.id.in_(some))
            .order_by(account.c.id)
            .with_for_update()
        )
    }


def _new_message_ids(connection: Connection, count: int) -> list[int]:
    if connection.dialect.name == "sqlite":
        # We hold the write lock, so what AUTOINCREMENT gave last is ours to continue.
        last = connection.execute(
            text("SELECT seq FROM sqlite_sequence WHERE name = 'message'")
        ).scalar_one_or_none()
        return list(range((last or 0) + 1, (last or 0) + 1 + count))
    numbers = connection.execute(
        text("SELECT nextval('message_id_seq') FROM generate_series(1, :count)"), {"count": count}
    )
    return sorted(numbers.scalars())


def _content_rows(ids: Sequence[int], deposits: Sequence[Deposit]) -> Iterator[dict[str, Any]]:
    for number, d in zip(ids, deposits, strict=True):
        for part, octets in enumerate(d.spool.parts()):
            yield {"id": number * PARTS_A_MESSAGE + part, "octets": octets}


def _bundles(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    bundle: list[dict[str, Any]] = []
    octets = 0
    for row in rows:
        bundle.append(row)
        octets += len(row["octets"])
        if octets >= _INSERT_OCTETS:
            yield bundle
            bundle, octets = [], 0
    if bundle:
        yield bundle


# -- reading -------------------------------------------------------------------------------------


def snapshot(connection: Connection, account_id: int) -> Snapshot:
    """The maildrop's counters and its last uid, of one moment."""
    row = connection.execute(
        select(account.c.messages, account.c.octets, account.c.next_uid).where(account.c.id == account_id)
    ).one_or_none()
    if row is None:
        raise NoSuchMailbox("the account was removed")
    return Snapshot(row.messages, row.octets, row.next_uid - 1)


def listing(connection: Connection, account_id: int, last_uid: int) -> Listing:
    """The entries up to `last_uid`, in the order of their uids."""
    rows = connection.execute(
        select(entry.c.uid, entry.c.octets, entry.c.message_id)
        .where(entry.c.account_id == account_id, entry.c.uid <= last_uid)
        .order_by(entry.c.uid)
    ).all()
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    uids, octets, messages = (array("q", column) for column in columns)
    return Listing(uids, octets, messages)


def unique_ids(connection: Connection, account_id: int, last_uid: int) -> list[str]:
    """The UIDLs of the same entries, in the same order (RFC 1939 §7)."""
    return list(
        connection.execute(
            select(entry.c.unique_id)
            .where(entry.c.account_id == account_id, entry.c.uid <= last_uid)
            .order_by(entry.c.uid)
        ).scalars()
    )


def open_message(connection: Connection, account_id: int, uid: int) -> Opened:
    """Find one entry and read its first octets; raises MessageGone when it is no longer there."""
    row = connection.execute(
        select(
            entry.c.message_id,
            entry.c.octets,
            entry.c.prefix,
            message.c.octets.label("content_octets"),
            message.c.dotted,
            content.c.octets.label("first"),
        )
        .select_from(entry)
        .join(message, message.c.id == entry.c.message_id)
        .outerjoin(content, content.c.id == entry.c.message_id * PARTS_A_MESSAGE)
        .where(entry.c.account_id == account_id, entry.c.uid == uid)
    ).one_or_none()
    if row is None:
        raise MessageGone("the message is no longer in the maildrop")
    first = row.first or b""
    if len(first) != min(row.content_octets, PART_OCTETS):
        raise MessageGone(f"the content of message {row.message_id} is damaged: run mailstack database check")
    return Opened(row.message_id, row.octets, row.content_octets, row.dotted, row.prefix + first)


def part(connection: Connection, message_id: int, number: int) -> bytes:
    """One later part of a message's content."""
    octets: bytes | None = connection.execute(
        select(content.c.octets).where(content.c.id == message_id * PARTS_A_MESSAGE + number)
    ).scalar_one_or_none()
    if octets is None:
        raise MessageGone(f"part {number} of message {message_id} is missing: run mailstack database check")
    return octets


def parts(octets: int) -> int:
    """How many parts a content of so many octets has."""
    return -(-octets // PART_OCTETS)


# -- expunge -------------------------------------------------------------------------------------


def expunge(connection: Connection, jobs: Sequence[Expunge]) -> list[int]:
    """Remove entries, and each message that lost its last one; return how many each job removed."""
    # One order for everybody, as in `deposit`.
    _numbering(connection, {job.account_id for job in jobs})
    removed = []
    touched: set[int] = set()
    for job in jobs:
        count = octets = 0
        for uids in _slices(sorted(job.uids)):
            mine = (entry.c.account_id == job.account_id) & entry.c.uid.in_(uids)
            found = connection.execute(select(entry.c.message_id, entry.c.octets).where(mine)).all()
            touched.update(row.message_id for row in found)
            _hold_messages(connection, [row.message_id for row in found])
            connection.execute(delete(entry).where(mine))
            count += len(found)
            octets += sum(row.octets for row in found)
        connection.execute(
            update(account)
            .where(account.c.id == job.account_id)
            .values(messages=account.c.messages - count, octets=account.c.octets - octets)
        )
        removed.append(count)
    remove_orphans(connection, touched)
    return removed


def remove_orphans(connection: Connection, message_ids: Iterable[int]) -> int:
    """Remove those of the messages that no entry points to, with their content; return how many."""
    count = 0
    for some in _slices(sorted(message_ids)):
        orphans = connection.execute(
            select(message.c.id, message.c.octets).where(
                message.c.id.in_(some), ~exists().where(entry.c.message_id == message.c.id)
            )
        ).all()
        ids = [row.id * PARTS_A_MESSAGE + n for row in orphans for n in range(parts(row.octets))]
        for keys in _slices(ids):
            connection.execute(delete(content).where(content.c.id.in_(keys)))
        connection.execute(delete(message).where(message.c.id.in_([row.id for row in orphans])))
        count += len(orphans)
    return count


def _hold_messages(connection: Connection, ids: Iterable[int]) -> None:
    """Let two hosts that remove a message's last two entries see each other (PostgreSQL only)."""
    if connection.dialect.name == "postgresql":
        connection.execute(
            select(func.count()).select_from(
                select(message.c.id)
                .where(message.c.id.in_(sorted(set(ids))))
                .order_by(message.c.id)
                .with_for_update()
                .subquery()
            )
        )


def _slices(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), _MANY):
        yield values[start : start + _MANY]
