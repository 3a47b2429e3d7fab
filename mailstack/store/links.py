"""Messages, their content, and the entries that point to them: what does not fit, or belongs to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    and_,
    delete,
    exists,
    func,
    literal_column,
    select,
    update,
)

from mailstack.store import removal
from mailstack.store.finding import Finding
from mailstack.store.leftovers import IN_NO_MAILDROP
from mailstack.store.tables import PARTS_A_MESSAGE, content, entry, leftover, message

# Written into the statement: PostgreSQL does not see that two parameters of GROUP BY are the same.
_number: ColumnElement[int] = content.c.id // literal_column(str(PARTS_A_MESSAGE), Integer)


class Range(NamedTuple):
    """The messages with ids from `low` up to `high`: their content, and the entries that point to them."""

    low: int
    high: int

    def halves(self) -> tuple[Range, ...]:
        """Two smaller ranges, unless this is one message."""
        middle = (self.low + self.high) // 2
        return (Range(self.low, middle), Range(middle, self.high)) if middle > self.low else ()

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
        """Note messages in no maildrop, which then go; remove content of no message."""
        removal.note(connection, self.orphans(connection))
        for number in self.strays(connection):
            connection.execute(delete(content).where(_parts_of(number)))

    def orphans(self, connection: Connection) -> Sequence[int]:
        """Messages that no maildrop has, none can get back, and no sweep will remove."""
        original = message.alias("original")  # which keeps its surrogate alive
        wanted = select(message.c.id).where(
            self._here(message.c.id),
            IN_NO_MAILDROP,
            ~exists().where(original.c.surrogate_id == message.c.id),
            message.c.id.not_in(select(leftover.c.message_id)),
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
