"""Messages and maildrop entries: SQL as plain functions `f(connection, ...)`.

The two that write, `deposit` and `expunge`, are set-wise: they take every job of a batch at once,
so that the number of statements does not grow with the number of messages.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import (
    BigInteger,
    Connection,
    Integer,
    Text,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal_column,
    select,
    text,
    update,
)

from mailstack.errors import MessageGone, NoSuchMailbox
from mailstack.mail.spool import PART_OCTETS, Spool
from mailstack.store import digests
from mailstack.store.clock import now
from mailstack.store.prepared import Prepared, is_among, packed
from mailstack.store.tables import PARTS_A_MESSAGE, account, content, entry, message, removed

_INSERT_OCTETS = 4 * 1024 * 1024
"""How much content one executemany carries: a 50 MB message must not be in memory a second time."""


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
    removed_by: str | None = None  # one of REMOVED_BY: they can be brought back for a while


class Snapshot(NamedTuple):
    """A maildrop at the moment of login: what STAT says, where new mail begins, and who may see it."""

    messages: int
    octets: int
    last_uid: int
    password_hash: str | None  # None: the account is disabled


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
    digests: bytes | None
    unread: bool  # never sent whole by RETR


# -- deposit -------------------------------------------------------------------------------------


def deposit(connection: Connection, deposits: Sequence[Deposit]) -> list[int]:
    """Store each message once and enter it in every recipient's maildrop; return the message ids.

    An account that was removed since RCPT is passed over; raises NoSuchMailbox where none is left.
    """
    accounts = _numbering(connection, {r.account_id for d in deposits for r in d.recipients})
    if any(all(r.account_id not in accounts for r in d.recipients) for d in deposits):
        raise NoSuchMailbox("the account was removed while its mail was on the way")
    ids = new_message_ids(connection, len(deposits))
    numbered = list(zip(ids, deposits, strict=True))
    found: dict[int, bytes] = {}
    for rows in _bundles(_content_rows(numbered, found)):
        _INSERT_CONTENT.run_many(connection, rows)
    _INSERT_MESSAGE.run_many(
        connection,
        [
            (number, d.spool.octets, d.dotted, d.reverse_path, d.at, d.mail_id, found[number])
            for number, d in numbered
        ],
    )
    entries = []
    growth: dict[int, list[int]] = {}
    for number, d in numbered:
        for account_id, prefix in d.recipients:
            if account_id not in accounts:
                continue
            next_uid, uid_validity = accounts[account_id]
            grown = growth.setdefault(account_id, [0, 0])
            uid = next_uid + grown[0]
            octets = len(prefix) + d.spool.octets
            grown[0] += 1
            grown[1] += octets
            entries.append((account_id, uid, f"{uid_validity}.{uid}", number, octets, prefix, d.at))
    _INSERT_ENTRY.run_many(connection, entries)
    _GROW.run_many(
        connection, [(messages, octets, key) for key, (messages, octets) in sorted(growth.items())]
    )
    return ids


def _numbering(connection: Connection, ids: Iterable[int]) -> dict[int, tuple[int, int]]:
    """The accounts' next uid and uid validity.

    On PostgreSQL they are locked, all in one order, so that two batches cannot wait for each other.
    """
    rows = _NUMBERING.rows(connection, packed(ids))
    return {account_id: (next_uid, uid_validity) for account_id, next_uid, uid_validity in rows}


def new_message_ids(connection: Connection, count: int) -> list[int]:
    """Numbers that no message ever had, in order."""
    if connection.dialect.name == "sqlite":
        # We hold the write lock, so what AUTOINCREMENT gave last is ours to continue.
        row = _LAST_MESSAGE_ID.row(connection)
        last = row[0] if row else 0
        return list(range(last + 1, last + 1 + count))
    return sorted(number for (number,) in _NEXT_MESSAGE_IDS.rows(connection, count))


def _content_rows(
    numbered: Iterable[tuple[int, Deposit]], found: dict[int, bytes]
) -> Iterator[tuple[int, bytes]]:
    """The parts of every message; their digests go into `found` as they pass."""
    for number, d in numbered:
        found[number] = b""
        for part, octets in enumerate(d.spool.parts()):
            found[number] += digests.of_part(octets)
            yield number * PARTS_A_MESSAGE + part, octets


def _bundles(rows: Iterable[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    bundle: list[tuple[int, bytes]] = []
    octets = 0
    for row in rows:
        bundle.append(row)
        octets += len(row[1])
        if octets >= _INSERT_OCTETS:
            yield bundle
            bundle, octets = [], 0
    if bundle:
        yield bundle


_NUMBERING = Prepared(
    select(account.c.id, account.c.next_uid, account.c.uid_validity)
    .where(is_among(account.c.id, "ids"))
    .order_by(account.c.id)
    .with_for_update(),
    "ids",
)
_LAST_MESSAGE_ID = Prepared(
    select(literal_column("seq")).select_from(text("sqlite_sequence")).where(text("name = 'message'"))
)
_NEXT_MESSAGE_IDS = Prepared(
    select(text("nextval('message_id_seq')")).select_from(
        func.generate_series(literal_column("1"), bindparam("count", type_=Integer))
    ),
    "count",
)
_INSERT_MESSAGE = Prepared(
    insert(message), "id", "octets", "dotted", "reverse_path", "received_at", "mail_id", "digests"
)
_INSERT_CONTENT = Prepared(insert(content), "id", "octets")
_INSERT_ENTRY = Prepared(
    insert(entry), "account_id", "uid", "unique_id", "message_id", "octets", "prefix", "delivered_at"
)
_GROW = Prepared(
    update(account)
    .where(account.c.id == bindparam("key"))
    .values(
        next_uid=account.c.next_uid + bindparam("more"),
        messages=account.c.messages + bindparam("more"),
        octets=account.c.octets + bindparam("total"),
    ),
    "more",
    "total",
    "key",
)


# -- reading -------------------------------------------------------------------------------------


def snapshot(connection: Connection, account_id: int) -> Snapshot:
    """The maildrop's counters and its last uid, of one moment."""
    row = _SNAPSHOT.row(connection, account_id)
    if row is None:
        raise NoSuchMailbox("the account was removed")
    messages, octets, next_uid, password_hash, disabled_at = row
    return Snapshot(messages, octets, next_uid - 1, password_hash if disabled_at is None else None)


def listing(connection: Connection, account_id: int, last_uid: int) -> Listing:
    """The entries up to `last_uid`, in the order of their uids."""
    rows = _LISTING.rows(connection, account_id, last_uid)
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    uids, octets, messages = (array("q", column) for column in columns)
    return Listing(uids, octets, messages)


def unique_ids(connection: Connection, account_id: int, last_uid: int) -> list[str]:
    """The UIDLs of the same entries, in the same order (RFC 1939 §7)."""
    return [unique_id for (unique_id,) in _UNIQUE_IDS.rows(connection, account_id, last_uid)]


def open_message(connection: Connection, account_id: int, uid: int) -> Opened:
    """Find one entry and read its first octets; raises MessageGone when it is no longer there."""
    row = _OPEN.row(connection, account_id, uid)
    if row is None:
        raise MessageGone("the message is no longer in the maildrop")
    message_id, octets, prefix, content_octets, dotted, known, damaged_at, first_read_at, first = row
    first = first or b""
    whole = len(first) == min(content_octets, PART_OCTETS)
    if not whole or damaged_at is not None or (first and not digests.fits(known, 0, first)):
        raise digests.damaged(message_id)
    return Opened(
        message_id, octets, content_octets, bool(dotted), prefix + first, known, first_read_at is None
    )


def part(connection: Connection, opened: Opened, number: int) -> bytes:
    """One later part of a message's content; raises MessageDamaged where that is not what was deposited."""
    row = _PART.row(connection, opened.message_id * PARTS_A_MESSAGE + number)
    octets: bytes = row[0] if row else b""
    whole = len(octets) == min(PART_OCTETS, opened.content_octets - number * PART_OCTETS)
    if not whole or not digests.fits(opened.digests, number, octets):
        raise digests.damaged(opened.message_id)
    return octets


_SNAPSHOT = Prepared(
    select(
        account.c.messages,
        account.c.octets,
        account.c.next_uid,
        account.c.password_hash,
        account.c.disabled_at,
    ).where(account.c.id == bindparam("account_id")),
    "account_id",
)
_UP_TO = (entry.c.account_id == bindparam("account_id")) & (entry.c.uid <= bindparam("last_uid"))
_LISTING = Prepared(
    select(entry.c.uid, entry.c.octets, entry.c.message_id).where(_UP_TO).order_by(entry.c.uid),
    "account_id",
    "last_uid",
)
_UNIQUE_IDS = Prepared(
    select(entry.c.unique_id).where(_UP_TO).order_by(entry.c.uid), "account_id", "last_uid"
)
_OPEN = Prepared(
    select(
        entry.c.message_id,
        entry.c.octets,
        entry.c.prefix,
        message.c.octets.label("content_octets"),
        message.c.dotted,
        message.c.digests,
        message.c.damaged_at,
        entry.c.first_read_at,
        content.c.octets.label("first"),
    )
    .select_from(entry)
    .join(message, message.c.id == entry.c.message_id)
    .outerjoin(content, content.c.id == entry.c.message_id * literal_column(str(PARTS_A_MESSAGE)))
    .where(entry.c.account_id == bindparam("account_id"), entry.c.uid == bindparam("uid")),
    "account_id",
    "uid",
)
_PART = Prepared(select(content.c.octets).where(content.c.id == bindparam("id")), "id")


def parts(octets: int) -> int:
    """How many parts a content of so many octets has."""
    return -(-octets // PART_OCTETS)


# -- expunge -------------------------------------------------------------------------------------


def expunge(connection: Connection, jobs: Sequence[Expunge]) -> list[int]:
    """Remove entries, and each message that lost its last one; return how many each job removed."""
    _numbering(connection, {job.account_id for job in jobs})  # one order for everybody, as in `deposit`
    counts = []
    touched: set[int] = set()
    for account_id, uids, removed_by in jobs:
        numbers = packed(uids)
        found = _FOUND.rows(connection, account_id, numbers)
        if removed_by is None:
            touched.update(message_id for message_id, _ in found)
        else:
            _KEEP.run(connection, now(), removed_by, account_id, numbers)
        if connection.dialect.name == "postgresql":
            # Two hosts that remove a message's last two entries have to see each other.
            _HOLD.rows(connection, packed(message_id for message_id, _ in found))
        _DELETE_ENTRIES.run(connection, account_id, numbers)
        _SHRINK.run(connection, len(found), sum(octets for _, octets in found), account_id)
        counts.append(len(found))
    remove_orphans(connection, touched)
    return counts


def remove_orphans(connection: Connection, message_ids: Iterable[int]) -> int:
    """Remove those of the messages that no entry points to, not even a removed one; return how many."""
    orphans = _ORPHANS.rows(connection, packed(message_ids))
    content_ids = [number * PARTS_A_MESSAGE + n for number, octets in orphans for n in range(parts(octets))]
    _DELETE_CONTENT.run(connection, packed(content_ids))
    _DELETE_MESSAGES.run(connection, packed(number for number, _ in orphans))
    return len(orphans)


_MINE = (entry.c.account_id == bindparam("account_id")) & is_among(entry.c.uid, "uids")
_FOUND = Prepared(select(entry.c.message_id, entry.c.octets).where(_MINE), "account_id", "uids")
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
    select(message.c.id, message.c.octets).where(
        is_among(message.c.id, "ids"),
        ~exists().where(entry.c.message_id == message.c.id),
        ~exists().where(removed.c.message_id == message.c.id),
    ),
    "ids",
)
_DELETE_CONTENT = Prepared(delete(content).where(is_among(content.c.id, "ids")), "ids")
_DELETE_MESSAGES = Prepared(delete(message).where(is_among(message.c.id, "ids")), "ids")
