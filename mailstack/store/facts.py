"""What the store has to remember about itself: one number a name, in the table `state`."""

from __future__ import annotations

import secrets
from typing import Final

from sqlalchemy import Connection, select

from mailstack.store import upsert
from mailstack.store.tables import state

UID_VALIDITY: Final = "uid validity"
"""The last one that was given out."""

IDENTITY: Final = "store identity"
"""A random number, so that two stores' backups cannot be mixed up."""

LAST_BACKUP: Final = "last good backup"
LAST_VERIFIED: Final = "last verified backup"
LAST_HOUSEKEEPING: Final = "last housekeeping"
LAST_SWEEP: Final = "last sweep"
"""When these ended, in microseconds since the epoch."""


def get(connection: Connection, name: str) -> int | None:
    """The number of this name, if there is one."""
    found: int | None = connection.execute(
        select(state.c.value).where(state.c.name == name)
    ).scalar_one_or_none()
    return found


def put(connection: Connection, name: str, value: int) -> None:
    """Remember the number under this name, in the place of another."""
    given = upsert.insert(connection.dialect.name, state).values(name=name, value=value)
    connection.execute(given.on_conflict_do_update(index_elements=[state.c.name], set_={"value": value}))


def new_identity() -> int:
    """A number that no store has."""
    return secrets.randbits(62)


def identity(connection: Connection) -> int:
    """The store's own number, made when it is first asked for."""
    if (known := get(connection, IDENTITY)) is None:
        known = new_identity()
        put(connection, IDENTITY, known)
    return known
