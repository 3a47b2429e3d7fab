"""Mail out of files of another server: what a maildrop lacks of it, under which unique-ids it comes in.

A message that was imported once is remembered for as long as the account lives, so that an import can
be run again: it brings what is missing, and nothing back that was deleted meanwhile. What was taken out
as an import may come again, and the same octets under the same unique-id are the same message. No
unique-id is given to two messages, and none that was kept is one that this server gives to later mail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Final, NamedTuple

from sqlalchemy import Connection, func, insert, select

from mailstack.errors import AlreadyRunning, MessageGone, NoSuchMailbox
from mailstack.mail import unique_id as unique_ids
from mailstack.mail.spool import Spool
from mailstack.store import accounts, browse, events, messages, undo
from mailstack.store.events import Kind
from mailstack.store.messages import Deposit, Recipient
from mailstack.store.prepared import Prepared
from mailstack.store.tables import FORGOTTEN, account, entry, imported, removed

MAX_UID_VALIDITY: Final = (1 << 32) - 1  # RFC 3501 §2.3.1.1
"""Of a foreign unique-id that looks like ours: what comes after it must still be a number of that kind."""

DIGEST_OCTETS: Final = 32  # of SHA-256

TOO_LONG: Final = "it has more than 70 characters, which RFC 1939 does not allow"
NO_UNIQUE_ID: Final = "it is empty or has characters that RFC 1939 does not allow"
TAKEN: Final = "another message has it, or had it"
OURS: Final = "this server gives such to its own mail"
CHANGED: Final = "it came here before it was known, and keeps the one that it was given"


class Wanted(NamedTuple):
    """One message of a source."""

    digest: bytes  # SHA-256 of its canonical octets
    unique_id: str | None = None
    certain: bool = True  # the source's server has given it; else it only would have, at the next session


class Fate(Enum):
    """Whether a message of a source is in the maildrop already."""

    NEW = auto()
    HERE = auto()  # it came otherwise, and is now remembered as if it had been imported
    DONE = auto()  # an earlier import has brought it, though it may have been deleted since


class Decision(NamedTuple):
    """What becomes of a message of a source."""

    fate: Fate
    unique_id: str | None = None  # what it keeps; None: a new one of ours
    why: str | None = None  # it does not keep what it had


class Imported(NamedTuple):
    """What is remembered of an imported message."""

    digest: bytes
    source_id: str
    unique_id: str


class Stand(NamedTuple):
    """How far the imports of a maildrop are, and what its next unique-ids begin with."""

    last_number: int
    uid_validity: int


class Known(NamedTuple):
    """What a maildrop has and had."""

    stand: Stand
    imported: list[Imported]  # but for what was taken out as an import
    entries: dict[str, int]  # the uids by the unique-ids
    gone: dict[str, bytes]  # the digest by the unique-id that no other message is given; b"": not known
    next_uid: int
    forgotten: frozenset[bytes] = frozenset()  # digests of what was taken out as an import
    brought: Sequence[int] = ()  # the uids of what imports have brought under unique-ids of ours


def known(connection: Connection, account_id: int) -> Known:
    """What an import has to know of a maildrop; raises NoSuchMailbox."""
    numbering = connection.execute(
        select(account.c.uid_validity, account.c.next_uid).where(account.c.id == account_id)
    ).one_or_none()
    if numbering is None:
        raise NoSuchMailbox("the account was removed")
    rows = connection.execute(
        select(imported).where(imported.c.account_id == account_id).order_by(imported.c.number)
    ).all()
    there = select(entry.c.unique_id, entry.c.uid, (entry.c.prefix == b"").label("brought")).where(
        entry.c.account_id == account_id
    )
    entries = connection.execute(there.order_by(entry.c.uid)).all()
    undoable = select(removed.c.unique_id).where(removed.c.account_id == account_id)
    uid_validity, next_uid = numbering
    forgotten = [
        (row.unique_id, row.digest.removeprefix(FORGOTTEN))
        for row in rows
        if len(row.digest) != DIGEST_OCTETS
    ]
    kept = {row.unique_id for row in rows}
    return Known(
        Stand(rows[-1].number if rows else 0, uid_validity),
        [Imported(*row[2:]) for row in rows if len(row.digest) == DIGEST_OCTETS],
        {row.unique_id: row.uid for row in entries},
        dict.fromkeys(connection.execute(undoable).scalars(), b"") | dict(forgotten),
        next_uid,
        frozenset(digest for _, digest in forgotten),
        [row.uid for row in entries if row.brought and row.unique_id not in kept],
    )


def decisions(wanted: Sequence[Wanted], have: Known, digest_of: Callable[[int], bytes]) -> list[Decision]:
    """What becomes of each message of a source; `digest_of` reads the entry of a uid (MessageGone)."""
    made = _seen(wanted, have.imported)
    unseen = {each.digest for each, seen in zip(wanted, made, strict=True) if seen is None}
    back = _brought_back(have, digest_of) if unseen & have.forgotten else Counter[bytes]()
    taken = {*have.entries, *(each.unique_id for each in have.imported if each.unique_id)}
    found: list[Decision] = []
    for each, seen in zip(wanted, made, strict=True):
        decision = seen or _present(each, have, digest_of) or _new(each, have, taken)
        if decision.unique_id is not None:
            taken.add(decision.unique_id)
        elif decision.fate is Fate.NEW and back[each.digest]:
            back[each.digest] -= 1
            decision = decision._replace(fate=Fate.HERE)
        found.append(decision)
    return found


def _seen(wanted: Sequence[Wanted], before: Iterable[Imported]) -> list[Decision | None]:
    """Pairs messages with those that were imported: of one content, and of one unique-id where both have one.

    Where a message lies in a source twice, so it does here.
    """
    left: dict[bytes, list[Imported]] = {}
    for one in before:
        left.setdefault(one.digest, []).append(one)
    made: list[Decision | None] = [None] * len(wanted)
    for exactly in (True, False):
        for number, each in enumerate(wanted):
            if made[number] is None and (match := _match(each, left.get(each.digest, ()), exactly=exactly)):
                left[each.digest].remove(match)
                changed = each.unique_id is not None and match.unique_id not in ("", each.unique_id)
                late = each.certain and each.unique_id is not None and not match.source_id
                differs = changed or (late and match.unique_id != each.unique_id)
                made[number] = Decision(Fate.DONE, why=CHANGED if differs else None)
    return made


def under_other_ids(wanted: Sequence[Wanted], found: Sequence[Decision], before: Iterable[Imported]) -> int:
    """How many of the new messages came by an import before, under unique-ids that are not here."""
    left = Counter(one.digest for one in before)
    left.subtract(each.digest for each, made in zip(wanted, found, strict=True) if made.fate is Fate.DONE)
    new = Counter(each.digest for each, made in zip(wanted, found, strict=True) if made.fate is Fate.NEW)
    return sum(min(number, max(left[digest], 0)) for digest, number in new.items())


def _match(each: Wanted, candidates: Iterable[Imported], *, exactly: bool) -> Imported | None:
    given = each.unique_id if each.certain else None
    for one in candidates:
        if (one.source_id == given) if exactly else not (one.source_id and given):
            return one
    return None


def _brought_back(have: Known, digest_of: Callable[[int], bytes]) -> Counter[bytes]:
    """What is here under unique-ids of ours since it was taken out as an import, and restored."""
    there: Counter[bytes] = Counter()
    for uid in have.brought:
        with suppress(MessageGone):
            there[digest_of(uid)] += 1
    return there - Counter(one.digest for one in have.imported if not one.unique_id)


def _present(each: Wanted, have: Known, digest_of: Callable[[int], bytes]) -> Decision | None:
    """A message that did not come by an import, such as one of our own exports, and is still here."""
    uid = have.entries.get(each.unique_id or "")
    try:
        here = uid is not None and digest_of(uid) == each.digest
        return Decision(Fate.HERE, each.unique_id) if here else None
    except MessageGone:
        return None


def _new(each: Wanted, have: Known, taken: set[str]) -> Decision:
    why = _refused(each.digest, each.unique_id, have, taken) if each.unique_id is not None else None
    return Decision(Fate.NEW, None if why else each.unique_id, why)


def _refused(digest: bytes, unique_id: str, have: Known, taken: set[str]) -> str | None:
    if not unique_ids.is_valid(unique_id):
        return TOO_LONG if len(unique_id) > unique_ids.MAX_OCTETS else NO_UNIQUE_ID
    if unique_id in taken or have.gone.get(unique_id, digest) != digest:
        return TAKEN
    ours = unique_ids.own(unique_id)
    if ours is None:
        return None
    if ours.uid_validity == have.stand.uid_validity and ours.uid < have.next_uid:
        return TAKEN  # by a message that was deleted here
    return OURS if ours.uid_validity > MAX_UID_VALIDITY else None


class Item(NamedTuple):
    """One message to be entered."""

    digest: bytes
    source_id: str  # "": not known for certain
    unique_id: str | None  # None: a new one of ours
    spool: Spool  # all that RETR will send
    dotted: bool
    reverse_path: str
    at: int  # when it arrived at the server that it comes from, microseconds since the epoch
    surrogate: Spool | None = None  # what RETR will send to clients that have not said UTF8, if that differs

    @property
    def spools(self) -> tuple[Spool, ...]:
        """What has to be stored."""
        return (self.spool,) if self.surrogate is None else (self.spool, self.surrogate)


_CHANGED_MEANWHILE: Final = (
    "another import, or a restore, has changed this maildrop meanwhile: run this again after it"
)


class Batch(NamedTuple):
    """Messages that are entered together, behind all that are there, in their order."""

    account_id: int
    stand: Stand  # as the importer knows it
    name: str  # of the whole import
    source: str  # for people
    items: tuple[Item, ...] = ()
    here: tuple[Imported, ...] = ()  # what is only to be remembered


def enter(connection: Connection, batches: Sequence[Batch]) -> list[Stand]:
    """Enter them, and remember that; where each account stands then.

    Raises NoSuchMailbox, or AlreadyRunning where the maildrop is not as the importer knows it.
    """
    return [_enter(connection, batch) for batch in batches]


def _enter(connection: Connection, batch: Batch) -> Stand:
    mine = batch.account_id
    numbering = messages.numbering(connection, [mine])  # from here on nobody else enters anything
    if mine not in numbering:
        raise NoSuchMailbox("the account was removed")
    first_uid, uid_validity, *_ = numbering[mine]
    numbers = select(func.coalesce(func.max(imported.c.number), 0)).where(imported.c.account_id == mine)
    last = connection.execute(numbers).scalar_one()
    if Stand(last, uid_validity) != batch.stand:
        raise AlreadyRunning(_CHANGED_MEANWHILE)
    items = [_kept(each, first_uid, uid_validity) for each in batch.items]
    kept = [each.unique_id for each in items if each.unique_id]
    if kept:
        _come_again(connection, mine, kept)
    owns = map(unique_ids.own, kept)
    highest = max((own.uid_validity for own in owns if own), default=0)
    if highest >= uid_validity:
        uid_validity = accounts.surpass_uid_validity(connection, mine, highest)
    if items:
        deposits = [_deposit(batch, number, each) for number, each in enumerate(items, last + 1)]
        messages.deposit(connection, deposits)
        uids = f"{first_uid}-{first_uid + len(items) - 1}"
        events.add(connection, Kind.IMPORTED, mine, uids=uids, source=batch.source)
    rows = [*batch.here, *(Imported(each.digest, each.source_id, each.unique_id or "") for each in items)]
    _REMEMBER.run_many(connection, [(mine, number, *row) for number, row in enumerate(rows, last + 1)])
    return Stand(last + len(rows), uid_validity)


def _kept(each: Item, next_uid: int, uid_validity: int) -> Item:
    """The message without its unique-id, where mail that has just come was given that one."""
    own = unique_ids.own(each.unique_id) if each.unique_id else None
    given = own is not None and own.uid_validity == uid_validity and own.uid < next_uid
    return each._replace(unique_id=None) if given else each


def _come_again(connection: Connection, account_id: int, kept: Sequence[str]) -> None:
    """What enters under the unique-id that it had is not brought back as well; raises AlreadyRunning."""
    if browse.there(connection, account_id, kept):  # `undo` has just brought it back
        raise AlreadyRunning(_CHANGED_MEANWHILE)
    undo.give_up(connection, account_id, kept)


def _deposit(batch: Batch, number: int, each: Item) -> Deposit:
    return Deposit(
        mail_id=f"{batch.name}-{number}",
        reverse_path=each.reverse_path,
        spool=each.spool,
        dotted=each.dotted,
        recipients=(
            Recipient(
                batch.account_id,
                prefix=b"",
                surrogate_prefix=None if each.surrogate is None else b"",
                unique_id=each.unique_id,
            ),
        ),
        at=each.at,
        surrogate=each.surrogate,
    )


_REMEMBER: Final = Prepared(insert(imported), "account_id", "number", "digest", "source_id", "unique_id")
