"""Messages and maildrop entries: SQL as plain functions `f(connection, ...)`.

What writes, `deposit` here and `expunge` in `removal`, is set-wise: it takes every job of a batch at
once, so that the number of statements does not grow with the number of messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import (
    Connection,
    Integer,
    bindparam,
    func,
    insert,
    literal_column,
    select,
    text,
)

from mailstack.errors import AccountsRemoved, MaildropFilled, NoSuchMailbox
from mailstack.mail.envelope import UNBOUNDED, Bound
from mailstack.mail.spool import Spool
from mailstack.mail.unique_id import Own
from mailstack.store import blobs, counters, digests, events, surrogate
from mailstack.store.events import Row
from mailstack.store.parts import content_id
from mailstack.store.prepared import Prepared, is_among, packed
from mailstack.store.tables import account, domain, entry, message

_INSERT_OCTETS = 4 * 1024 * 1024
"""How much content one executemany carries: a batch of messages must not be in memory a second time."""

_LARGE_OCTETS = 64 * 1024
"""Above this a message's parts are written one by one."""


class Recipient(NamedTuple):
    """One maildrop that a message goes to, and the trace octets that only this entry carries."""

    account_id: int
    prefix: bytes
    surrogate_prefix: bytes | None = None
    """The same for a client that has not said UTF8; None where all of the message is the same for it."""
    unique_id: str | None = None
    """What the message was known by at the server that it comes from; None: it is given one of ours."""
    bound: Bound = UNBOUNDED
    """A maildrop that has so much already takes no more."""


class Deposit(NamedTuple):
    """One accepted mail object (RFC 5321 §2.3.1), ready to be stored."""

    mail_id: str
    reverse_path: str
    spool: Spool
    dotted: bool
    recipients: Sequence[Recipient]
    at: int  # microseconds since the epoch
    surrogate: Spool | None = None  # the content for clients that have not said UTF8, if that differs
    event: Row | None = None  # what is told of it; the entries that it gets are added here


Refusal = AccountsRemoved | MaildropFilled
"""Recipients were removed since RCPT, or have no room for any message any more."""


class Snapshot(NamedTuple):
    """A maildrop at the moment of login: what STAT says, where new mail begins, and who may see it."""

    messages: int
    octets: int
    last_uid: int
    password_hash: str | None  # None: the account is disabled
    surrogates: int = 0  # how many entries differ for a client that has not said UTF8 (RFC 6858)
    surrogate_octets: int = 0  # what those add to `octets`
    address: str = ""  # the account's, without the quotes that its local-part may need


# -- deposit -------------------------------------------------------------------------------------


def deposit(connection: Connection, deposits: Sequence[Deposit]) -> Sequence[int | Refusal]:
    """Store each message once and enter it in every recipient's maildrop; return the message ids.

    Of one that has a Refusal instead nothing is stored.
    """
    accounts = numbering(connection, {r.account_id for d in deposits for r in d.recipients})
    if refused := _refused(deposits, accounts):
        stored = iter(deposit(connection, [d for place, d in enumerate(deposits) if place not in refused]))
        return [refused[place] if place in refused else next(stored) for place in range(len(deposits))]
    surrogates = [d._replace(spool=d.surrogate) for d in deposits if d.surrogate is not None]
    ids = new_message_ids(connection, len(deposits) + len(surrogates))
    numbered = list(zip(ids, [*deposits, *surrogates], strict=True))
    _INSERT_MESSAGE.run_many(
        connection,
        [
            (number, d.spool.octets, d.dotted, d.reverse_path, d.at, d.mail_id, found)
            for (number, d), found in zip(numbered, _store_content(connection, numbered), strict=True)
        ],
    )
    if surrogates:
        originals = (number for number, d in numbered if d.surrogate is not None)
        surrogate.LINK.run_many(connection, list(zip(ids[len(deposits) :], originals, strict=False)))
    entries: list[tuple[int, int, str, int, int, bytes, int]] = []
    in_ascii: list[tuple[int, bytes, int, int]] = []  # what a client sees without UTF8
    events_of: list[Row] = []
    growth: dict[int, list[int]] = {}  # SUMS of what is entered
    for number, d in zip(ids, deposits, strict=False):
        content_octets = d.spool.octets
        entered = []
        for account_id, prefix, surrogate_prefix, unique_id, _ in d.recipients:
            next_uid, uid_validity, _, _ = accounts[account_id]
            grown = growth.setdefault(account_id, [0, 0, 0, 0])
            uid = next_uid + grown[0]
            octets = len(prefix) + content_octets
            grown[0] += 1
            grown[1] += octets
            known_as = unique_id or str(Own(uid_validity, uid))
            entries.append((account_id, uid, known_as, number, octets, prefix, d.at))
            entered.append((account_id, uid))
            if surrogate_prefix is not None:
                others = len(surrogate_prefix) + (d.surrogate or d.spool).octets
                in_ascii.append((others, surrogate_prefix, account_id, uid))
                grown[2] += 1
                grown[3] += others - octets
        if d.event is not None:
            events_of.append(d.event.entered(entered))
    _INSERT_ENTRY.run_many(connection, entries)
    counters.ADD.run_many(connection, [(grown[0], *grown, key) for key, grown in growth.items()])
    if events_of:
        events.INSERT.run_many(connection, events_of)
    if in_ascii:
        surrogate.ENTER.run_many(connection, in_ascii)
    return ids[: len(deposits)]


def _refused(
    deposits: Sequence[Deposit], accounts: Mapping[int, tuple[int, int, int, int]]
) -> dict[int, Refusal]:
    """Those that cannot be stored, by their place; what the others add counts for who comes behind them."""
    refused: dict[int, Refusal] = {}
    messages, octets = dict.fromkeys(accounts, 0), dict.fromkeys(accounts, 0)
    for place, d in enumerate(deposits):
        for account_id, _, _, _, (most_octets, most_messages) in d.recipients:
            if account_id not in accounts:
                gone = frozenset(r.account_id for r in d.recipients if r.account_id not in accounts)
                said = "the account was removed while its mail was on the way"
                refused[place] = AccountsRemoved(said, gone)
                break
            _, _, octets_before, messages_before = accounts[account_id]
            if (most_messages is not None and messages_before + messages[account_id] >= most_messages) or (
                most_octets is not None and octets_before + octets[account_id] >= most_octets
            ):
                refused[place] = MaildropFilled("a maildrop has got full by other mail that came meanwhile")
                break
        else:
            for account_id, prefix, _, _, _ in d.recipients:
                messages[account_id] += 1
                octets[account_id] += len(prefix) + d.spool.octets
    return refused


def numbering(connection: Connection, ids: Iterable[int]) -> dict[int, tuple[int, int, int, int]]:
    """The accounts' next uid and uid validity, and the octets and messages that they have.

    On PostgreSQL they are locked, all in one order, so that two batches cannot wait for each other.
    """
    rows = _NUMBERING.rows(connection, packed(ids))
    return {row[0]: row[1:] for row in rows}


def new_message_ids(connection: Connection, count: int) -> list[int]:
    """Numbers that no message ever had, in order."""
    if connection.dialect.name == "sqlite":
        # We hold the write lock, so what AUTOINCREMENT gave last is ours to continue.
        row = _LAST_MESSAGE_ID.row(connection)
        last = row[0] if row else 0
        return list(range(last + 1, last + 1 + count))
    return sorted(number for (number,) in _NEXT_MESSAGE_IDS.rows(connection, count))


def _store_content(connection: Connection, numbered: Iterable[tuple[int, Deposit]]) -> list[bytes]:
    """Insert the parts of every message; returns the digests of each."""
    found: list[bytes] = []
    rows: list[tuple[int, bytes]] = []
    octets = 0
    for number, d in numbered:
        first_id = content_id(number)
        if d.spool.octets > _LARGE_OCTETS:
            found.append(_store_large(connection, first_id, d.spool))
            continue
        whole = b"".join(next(d.spool.parts_in_turn(), ()))  # so little is one part
        found.append(digests.of_part(whole) if whole else b"")
        if whole:
            rows.append((first_id, whole))
        octets += len(whole)
        if octets >= _INSERT_OCTETS:
            blobs.INSERT.run_many(connection, rows)
            rows, octets = [], 0
    blobs.INSERT.run_many(connection, rows)
    return found


def _store_large(connection: Connection, first_id: int, spool: Spool) -> bytes:
    """Insert the parts of one message; returns its digests."""
    found = b""
    with blobs.flowing(connection, spool.octets) as flow:
        for content_id, pieces in enumerate(spool.parts_in_turn(), first_id):
            found += digests.of_part(*pieces)
            blobs.put(connection, content_id, pieces)
            flow()
    return found


_NUMBERING = Prepared(
    select(account.c.id, account.c.next_uid, account.c.uid_validity, account.c.octets, account.c.messages)
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
_INSERT_ENTRY = Prepared(
    insert(entry), "account_id", "uid", "unique_id", "message_id", "octets", "prefix", "delivered_at"
)


# -- reading -------------------------------------------------------------------------------------


def snapshot(connection: Connection, account_id: int) -> Snapshot:
    """The maildrop's counters and its last uid, of one moment."""
    row = _SNAPSHOT.row(connection, account_id)
    if row is None:
        raise NoSuchMailbox("the account was removed")
    messages, octets, next_uid, password_hash, disabled_at, surrogates, surrogate_octets, address = row
    return Snapshot(
        messages,
        octets,
        next_uid - 1,
        password_hash if disabled_at is None else None,
        surrogates,
        surrogate_octets,
        address,
    )


_SNAPSHOT = Prepared(
    select(
        account.c.messages,
        account.c.octets,
        account.c.next_uid,
        account.c.password_hash,
        account.c.disabled_at,
        account.c.surrogates,
        account.c.surrogate_octets,
        account.c.local_part.concat(literal_column("'@'")).concat(domain.c.name),
    )
    .join(domain, domain.c.id == account.c.domain_id)
    .where(account.c.id == bindparam("account_id")),
    "account_id",
)
