"""Messages, their content, and the entries that point to them: what does not fit, or belongs to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, delete, exists, func, select, update

from mailstack.store import removal
from mailstack.store.finding import Finding
from mailstack.store.leftovers import IN_NO_MAILDROP
from mailstack.store.parts import MESSAGE_ID, is_of_messages
from mailstack.store.tables import content, entry, leftover, message


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
            connection.execute(delete(content).where(is_of_messages(number, number + 1)))

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
        orphaned = ~exists().where(message.c.id == MESSAGE_ID)
        wanted = select(MESSAGE_ID).where(is_of_messages(*self), orphaned).distinct()
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
