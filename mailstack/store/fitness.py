"""What a PostgreSQL server and the way to it must not be set to: that would break what we promise, silently.

*Not to wait for the disk*: mail of which a sender was told that it is here would be lost with the power.

*To pool by transaction* (PgBouncer's `pool_mode`): each transaction then runs in whichever of PostgreSQL's
sessions is free. A lock that belongs to a session is held by one that serves somebody else a moment
later, and asked again by them it is granted again. And what a session was told, not to wait for the
disk for its locks, is then true for whoever has it next.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from sqlalchemy import Connection, func, select

from mailstack.errors import BadSetting
from mailstack.store.engine import Database

_OTHERS: Final = 4
"""How many transactions of others are open when we look again; a pooler gives what was free last first."""

_SESSION: Final = select(func.pg_backend_pid())


def check(database: Database) -> None:
    """Raise BadSetting, saying what has to be set, unless the database is fit for mail; SQLite always is."""
    if database.is_sqlite:
        return
    with database.translated(), ExitStack() as stack:
        mine = stack.enter_context(database.engine.connect())
        if _is_pooled_by_transaction(database, mine, stack):
            raise BadSetting(
                "database_url leads to a pooler that pools by transaction, where two readers could have"
                " one maildrop; let it pool by session (PgBouncer: pool_mode = session)"
            )
        if mine.scalar(select(func.current_setting("synchronous_commit"))) == "off":
            raise BadSetting(
                "the database is set to say that mail is on the disk before it is; let it wait"
                " (PostgreSQL: ALTER DATABASE ... SET synchronous_commit = on)"
            )


def _is_pooled_by_transaction(database: Database, mine: Connection, stack: ExitStack) -> bool:
    session = mine.scalar(_SESSION)
    driver = mine.connection.driver_connection
    assert driver is not None
    if driver.info.backend_pid == session:
        return False  # who we connected to is who answers, so nobody is in between
    for _ in range(_OTHERS):
        mine.rollback()
        other = stack.enter_context(database.engine.connect())
        if other.scalar(_SESSION) == session or mine.scalar(_SESSION) != session:
            return True
    return False
