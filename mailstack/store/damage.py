"""Messages that were found damaged: noted, so that a client is told before its reply has begun."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, select, update

from mailstack.mail.address import Mailbox
from mailstack.store.clock import now
from mailstack.store.tables import account, domain, entry, message


def note(connection: Connection, message_ids: Sequence[int]) -> list[None]:
    """Remember that these messages are damaged; a message that has gone meanwhile is nobody's trouble."""
    connection.execute(
        update(message)
        .where(message.c.id.in_(message_ids), message.c.damaged_at.is_(None))
        .values(damaged_at=now())
    )
    return [None] * len(message_ids)


class Harmed(NamedTuple):
    """An entry whose message, or whose form in ASCII, is damaged."""

    address: str
    unique_id: str


def harmed(connection: Connection) -> list[Harmed]:
    """All of them, by account and in the order of the maildrop."""
    damaged = select(message.c.id).where(message.c.damaged_at.is_not(None))
    rows = connection.execute(
        select(account.c.local_part, domain.c.name, entry.c.unique_id)
        .join(message, message.c.id == entry.c.message_id)
        .join(account, account.c.id == entry.c.account_id)
        .join(domain, domain.c.id == account.c.domain_id)
        .where(message.c.id.in_(damaged) | message.c.surrogate_id.in_(damaged))
        .order_by(entry.c.account_id, entry.c.uid)
    )
    return [Harmed(str(Mailbox(row.local_part, row.name)), row.unique_id) for row in rows]


def forget(connection: Connection, message_id: int) -> None:
    """The message was read whole again: a cable, a controller or its memory was at fault."""
    connection.execute(update(message).where(message.c.id == message_id).values(damaged_at=None))
