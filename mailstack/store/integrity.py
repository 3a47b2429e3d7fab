"""Does the store add up? Recounts what is counted, and finds what belongs to nothing.

Every step is a short transaction of its own, so a check runs beside the service. What is found is
looked at again, inside the transaction that mends it: mail may have come or gone in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    and_,
    delete,
    exists,
    func,
    literal_column,
    select,
    update,
)

from mailstack.errors import StoreDamaged
from mailstack.mail.address import Mailbox
from mailstack.store import legible, messages, removal, reread
from mailstack.store.engine import Database
from mailstack.store.legible import Walk
from mailstack.store.runs import Runs
from mailstack.store.tables import PARTS_A_MESSAGE, account, content, domain, entry, message, removed

_IDS_A_STEP = 5000

# Written into the statement: PostgreSQL does not see that two parameters of GROUP BY are the same.
_number: ColumnElement[int] = content.c.id // literal_column(str(PARTS_A_MESSAGE), Integer)
_part: ColumnElement[int] = content.c.id % literal_column(str(PARTS_A_MESSAGE), Integer)


class Finding(NamedTuple):
    """One thing that is wrong, in a sentence, and whether that was or could be mended."""

    text: str
    mendable: bool


class Step(NamedTuple):
    """How far a check has come, and what the step found."""

    done: int
    total: int
    findings: tuple[Finding, ...]


def check(database: Database, *, repair: bool = False, read_content: bool = True) -> Iterator[Step]:
    """Look through the whole store, mending what can be if `repair`; yields after every step.

    Reading every message takes as long as a backup; without it counters and links are compared.
    """
    to_walk = legible.walks(database)
    accounts = _accounts(database)
    first, last = _all_ends(database)
    ranges = [(low, low + _IDS_A_STEP) for low in range(first, last + 1, _IDS_A_STEP)]
    to_read = ranges if read_content else []
    total, done = len(to_walk) + len(ranges) + len(accounts) + len(to_read), 0
    for walk in to_walk:
        done += 1
        yield Step(done, total, tuple(_walked(database, walk)))
    # Messages first: mending an entry's octets changes what its account's counters have to be.
    for low, high in ranges:
        done += 1
        yield Step(done, total, tuple(_messages_step(database, _Messages(low, high), repair=repair)))
    for account_id in accounts:
        done += 1
        yield Step(done, total, _account_step(database, _Account(account_id), repair=repair))
    for low, high in to_read:
        done += 1
        yield Step(done, total, tuple(_content(database, low, high)))


def _accounts(database: Database) -> Sequence[int]:
    try:
        with database.reading() as connection:
            return connection.execute(select(account.c.id).order_by(account.c.id)).scalars().all()
    except StoreDamaged:  # which the step that reads the table tells
        return ()


def _walked(database: Database, walk: Walk) -> Iterator[Finding]:
    if not legible.can_be_read(database, walk):
        yield Finding(f"some of the {walk.name} {legible.UNREADABLE}", mendable=False)


def _content(database: Database, low: int, high: int) -> Iterator[Finding]:
    for found in reread.reread(database, low - 1, high - 1):
        with suppress(StoreDamaged):  # of what it could not note the finding tells all the same
            reread.note(database, found)
        for said in (*(said for _, said in found.damaged), *found.uncanonical):
            yield Finding(said, mendable=False)


def _all_ends(database: Database) -> tuple[int, int]:
    try:
        with database.reading() as connection:
            return _ends(connection)
    except StoreDamaged:  # at an end: then every number that was given to a message is looked at
        with database.writing() as connection:
            return 1, messages.new_message_ids(connection, 1)[0]


def _ends(connection: Connection) -> tuple[int, int]:
    """The lowest and the highest message id; content may be left of messages beyond both ends."""
    low, high = connection.execute(select(func.min(message.c.id), func.max(message.c.id))).one()
    first, last = connection.execute(select(func.min(content.c.id), func.max(content.c.id))).one()
    ids = [low, high] if low is not None else []
    ids += [first // PARTS_A_MESSAGE, last // PARTS_A_MESSAGE] if first is not None else []
    return (min(ids), max(ids)) if ids else (0, -1)


def _account_step(database: Database, part: _Account, *, repair: bool) -> tuple[Finding, ...]:
    try:
        return _looked_at(database, part, repair=repair)
    except StoreDamaged:
        return (_lost(part.name(database)),)


def _messages_step(database: Database, part: _Messages, *, repair: bool) -> Iterator[Finding]:
    lost = Runs()
    yield from _with_halves(database, part, lost, repair=repair)
    if lost:
        yield _lost(f"messages {lost}")


def _with_halves(database: Database, part: _Messages, lost: Runs, *, repair: bool) -> Iterator[Finding]:
    """What there is to say of the range; where it cannot be read, of its halves, down to what is `lost`."""
    try:
        yield from _looked_at(database, part, repair=repair)
    except StoreDamaged:
        halves = part.halves()
        if not halves:
            lost.add(part.low)
        for half in halves:
            yield from _with_halves(database, half, lost, repair=repair)


def _lost(whose: str) -> Finding:
    return Finding(f"some of what belongs to {whose} {legible.UNREADABLE}", mendable=False)


def _looked_at(database: Database, part: _Account | _Messages, *, repair: bool) -> tuple[Finding, ...]:
    with database.reading() as connection:
        found = part.look(connection)
    if not repair or not any(finding.mendable for finding in found):
        return found
    with database.writing() as connection:
        part.lock(connection)
        found = part.look(connection)
        part.mend(connection)
    return found


def sweep(database: Database) -> Iterator[int]:
    """Remove what belongs to nothing, range by range; yields how much that was in each."""
    with database.reading() as connection:
        first, last = _ends(connection)
    for low in range(first, last + 1, _IDS_A_STEP):
        here = _Messages(low, low + _IDS_A_STEP)
        with database.reading() as connection:
            litter = [*here.orphans(connection), *here.strays(connection)]
        if litter:
            with database.writing() as connection:
                here.sweep(connection)
        yield len(litter)


class _Account(NamedTuple):
    """An account's entries, each with its message, and its counters against them."""

    id: int

    def name(self, database: Database) -> str:
        """The account's address, as long as that can be read."""
        with suppress(StoreDamaged), database.reading() as connection:
            wanted = select(account.c.local_part, domain.c.name).join(
                domain, domain.c.id == account.c.domain_id
            )
            if row := connection.execute(wanted.where(account.c.id == self.id)).one_or_none():
                return str(Mailbox(*row))
        return f"account {self.id}"

    def look(self, connection: Connection) -> tuple[Finding, ...]:
        row = connection.execute(_counted(self.id)).one_or_none()
        if row is None:  # removed while we were looking elsewhere
            return ()
        name = Mailbox(row.local_part, row.name)
        found = [f"{name}: the message of uid {uid} is gone" for uid in self._lost(connection)]
        if row.messages != row.counted:
            found.append(f"{name}: the counter says {row.messages} messages, the maildrop has {row.counted}")
        if row.octets != row.summed:
            found.append(f"{name}: the counter says {row.octets} octets, the messages have {row.summed}")
        if (row.surrogates, row.surrogate_octets) != (row.surrogates_counted, row.surrogates_summed):
            found.append(
                f"{name}: the counter says {row.surrogates} surrogates with {row.surrogate_octets} octets"
                f" more, the maildrop has {row.surrogates_counted} with {row.surrogates_summed}"
            )
        if row.next_uid <= row.last_uid:
            found.append(f"{name}: the next uid is {row.next_uid}, but {row.last_uid} was given out already")
        return (
            *(Finding(text, mendable=True) for text in found),
            *(
                Finding(f"{name}: the unique-id {unique_id} stands for {count} messages", mendable=False)
                for unique_id, count in self._repeated(connection)
            ),
        )

    def _repeated(self, connection: Connection) -> Sequence[Any]:
        wanted = select(entry.c.unique_id, func.count()).where(entry.c.account_id == self.id)
        return connection.execute(wanted.group_by(entry.c.unique_id).having(func.count() > 1)).all()

    def lock(self, connection: Connection) -> None:
        connection.execute(select(account.c.id).where(account.c.id == self.id).with_for_update())

    def mend(self, connection: Connection) -> None:
        for uid in self._lost(connection):
            connection.execute(delete(entry).where(entry.c.account_id == self.id, entry.c.uid == uid))
        row = connection.execute(_counted(self.id)).one_or_none()
        if row is not None:
            connection.execute(
                update(account)
                .where(account.c.id == self.id)
                .values(
                    messages=row.counted,
                    octets=int(row.summed),
                    surrogates=row.surrogates_counted,
                    surrogate_octets=int(row.surrogates_summed),
                    next_uid=max(row.next_uid, row.last_uid + 1),
                )
            )

    def _lost(self, connection: Connection) -> Sequence[int]:
        # Foreign keys forbid it; a database that was edited by hand knows no foreign keys.
        wanted = select(entry.c.uid).where(
            entry.c.account_id == self.id, ~exists().where(message.c.id == entry.c.message_id)
        )
        return connection.execute(wanted.order_by(entry.c.uid)).scalars().all()


def _counted(account_id: int) -> Select[Any]:
    return (
        select(
            account.c.local_part,
            domain.c.name,
            account.c.messages,
            account.c.octets,
            account.c.surrogates,
            account.c.surrogate_octets,
            account.c.next_uid,
            func.count(entry.c.uid).label("counted"),
            func.coalesce(func.sum(entry.c.octets), 0).label("summed"),
            func.count(entry.c.surrogate_octets).label("surrogates_counted"),
            func.coalesce(func.sum(entry.c.surrogate_octets - entry.c.octets), 0).label("surrogates_summed"),
            func.coalesce(func.max(entry.c.uid), 0).label("last_uid"),
        )
        .join(domain, domain.c.id == account.c.domain_id)
        .outerjoin(entry, entry.c.account_id == account.c.id)
        .where(account.c.id == account_id)
        .group_by(account.c.id, domain.c.name)
    )


class _Messages(NamedTuple):
    """The messages with ids from `low` up to `high`: their content, and the entries that point to them."""

    low: int
    high: int

    def halves(self) -> tuple[_Messages, ...]:
        """Two smaller ranges, unless this is one message."""
        middle = (self.low + self.high) // 2
        return (_Messages(self.low, middle), _Messages(middle, self.high)) if middle > self.low else ()

    def look(self, connection: Connection) -> tuple[Finding, ...]:
        return (
            *(
                Finding(f"message {number} is in no maildrop", mendable=True)
                for number in self.orphans(connection)
            ),
            *(
                Finding(f"content is left of message {number}, which is not there", mendable=True)
                for number in self.strays(connection)
            ),
            *(
                Finding(
                    f"account {account_id}, uid {uid}: the entry says {says} octets, the message has {has}",
                    mendable=True,
                )
                for account_id, uid, says, has in self._disagreeing(connection)
            ),
            *(
                Finding(
                    f"account {account_id}, uid {uid}: the entry says {says} octets for the surrogate,"
                    f" which has {has}",
                    mendable=True,
                )
                for account_id, uid, says, has in self._surrogates_disagreeing(connection)
            ),
        )

    def lock(self, connection: Connection) -> None:
        """Nothing: each mending statement says again what it is about."""

    def mend(self, connection: Connection) -> None:
        self.sweep(connection)
        for account_id, uid, _, has in self._disagreeing(connection):
            mine = and_(entry.c.account_id == account_id, entry.c.uid == uid)
            connection.execute(update(entry).where(mine).values(octets=has))

        for account_id, uid, _, has in self._surrogates_disagreeing(connection):
            mine = and_(entry.c.account_id == account_id, entry.c.uid == uid)
            connection.execute(update(entry).where(mine).values(surrogate_octets=has))

    def sweep(self, connection: Connection) -> None:
        """Remove messages in no maildrop, and content of no message."""
        removal.remove_orphans(connection, self.orphans(connection))
        for number in self.strays(connection):
            connection.execute(delete(content).where(_parts_of(number)))

    def orphans(self, connection: Connection) -> Sequence[int]:
        """Messages that no maildrop has, and none can get back."""
        original = message.alias("original")  # which keeps its surrogate alive
        wanted = select(message.c.id).where(
            self._here(message.c.id),
            ~exists().where(entry.c.message_id == message.c.id),
            ~exists().where(removed.c.message_id == message.c.id),
            ~exists().where(original.c.surrogate_id == message.c.id),
        )
        return connection.execute(wanted.order_by(message.c.id)).scalars().all()

    def strays(self, connection: Connection) -> Sequence[int]:
        """Numbers of messages that are not there, whose content is."""
        orphaned = ~exists().where(message.c.id == _number)
        wanted = select(_number).where(self._content_here(), orphaned).distinct()
        return sorted(connection.execute(wanted).scalars().all())

    def _disagreeing(self, connection: Connection) -> Sequence[Any]:
        has = message.c.octets + func.length(entry.c.prefix)
        return connection.execute(
            select(entry.c.account_id, entry.c.uid, entry.c.octets, has)
            .join(message, message.c.id == entry.c.message_id)
            .where(self._here(entry.c.message_id), entry.c.octets != has)
            .order_by(entry.c.account_id, entry.c.uid)
        ).all()

    def _surrogates_disagreeing(self, connection: Connection) -> Sequence[Any]:
        shown = message.alias("shown")
        has = shown.c.octets + func.length(entry.c.surrogate_prefix)
        return connection.execute(
            select(entry.c.account_id, entry.c.uid, entry.c.surrogate_octets, has)
            .join(message, message.c.id == entry.c.message_id)
            .join(shown, shown.c.id == func.coalesce(message.c.surrogate_id, message.c.id))
            .where(self._here(entry.c.message_id), entry.c.surrogate_octets != has)
            .order_by(entry.c.account_id, entry.c.uid)
        ).all()

    def _here(self, column: Any) -> Any:
        return and_(column >= self.low, column < self.high)

    def _content_here(self) -> Any:
        first, end = self.low * PARTS_A_MESSAGE, self.high * PARTS_A_MESSAGE
        return and_(content.c.id >= first, content.c.id < end)


def _parts_of(number: int) -> Any:
    return and_(content.c.id >= number * PARTS_A_MESSAGE, content.c.id < (number + 1) * PARTS_A_MESSAGE)
