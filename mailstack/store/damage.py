"""Messages that were found damaged: noted, so that a client is told before its reply has begun."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, update

from mailstack.store.clock import now
from mailstack.store.tables import message


def note(connection: Connection, message_ids: Sequence[int]) -> list[None]:
    """Remember that these messages are damaged; a message that has gone meanwhile is nobody's trouble."""
    connection.execute(
        update(message)
        .where(message.c.id.in_(message_ids), message.c.damaged_at.is_(None))
        .values(damaged_at=now())
    )
    return [None] * len(message_ids)


def forget(connection: Connection, message_id: int) -> None:
    """The message was read whole again: a cable, a controller or its memory was at fault."""
    connection.execute(update(message).where(message.c.id == message_id).values(damaged_at=None))
