"""What a database must not be, or be set to: that would break what we promise, silently.

*To be read, and not written*: a file that root has copied, say, or a PostgreSQL server that stands by.
Logins work and every message is refused.

*Not to wait for the disk*: mail of which a sender was told that it is here would be lost with the power.

*To pool by transaction* (PgBouncer's `pool_mode`): each transaction then runs in whichever of PostgreSQL's
sessions is free. A lock that belongs to a session is held by one that serves somebody else a moment
later, and asked again by them it is granted again. And what a session was told, not to wait for the
disk for its locks, is then true for whoever has it next.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, closing
from typing import Final

from sqlalchemy import Connection, func, select

from mailstack.errors import BadSetting, StoreReadOnly
from mailstack.store import driver_errors, sqlite
from mailstack.store.engine import Database

_OTHERS: Final = 4
"""How many transactions of others are open when we look again; a pooler gives what was free last first."""

_WAITING: Final = {
    "synchronous_commit": "ALTER DATABASE ... SET synchronous_commit = on",
    "fsync": "ALTER SYSTEM SET fsync = on, SELECT pg_reload_conf(), then once the command sync",
}
"""The settings of a server that waits for its disk, and what switches them on."""

_SESSION: Final = select(func.pg_backend_pid())


def check(database: Database) -> None:
    """Raise BadSetting, saying what has to be set, or StoreUnavailable, unless it is fit for mail."""
    require_writable(database)
    if database.is_sqlite:
        _try_to_write(database)
        return
    with database.translated(), ExitStack() as stack:
        mine = stack.enter_context(database.engine.connect())
        if _is_pooled_by_transaction(database, mine, stack):
            raise BadSetting(
                "database_url leads to a pooler that pools by transaction, where two readers could have"
                " one maildrop; let it pool by session (PgBouncer: pool_mode = session)"
            )
        for name, mending in _WAITING.items():
            if mine.scalar(select(func.current_setting(name, True))) == "off":  # NULL: it has no such setting
                raise BadSetting(
                    "the database is set to say that mail is on the disk before it is; let it wait"
                    f" (PostgreSQL: {mending})"
                )


def require_writable(database: Database) -> None:
    """Raise StoreReadOnly where the database is there to be read alone; in nobody's way who writes."""
    if database.is_sqlite:
        # Of a file that it has opened to read SQLite begins to read without a word, whatever it is told; and
        # of a disk that became read-only under an open file it learns when it writes.
        for file in sqlite.files_of(str(database.path)):
            if os.path.exists(file) and not os.access(file, os.W_OK, effective_ids=True):
                raise driver_errors.unwritable(database.path, f"{file} is read-only, or somebody else's")
        return
    with database.reading() as connection:
        if connection.scalar(select(func.current_setting("transaction_read_only"))) == "on":
            raise StoreReadOnly(
                "the database can be read and not written: it is a standby server, or set to"
                " default_transaction_read_only = on"
            )


def _try_to_write(database: Database) -> None:
    with database.translated(), closing(database.engine.raw_connection()) as connection:
        try:
            sqlite.try_to_write(connection.cursor())
        except BaseException:
            connection.invalidate()  # once the file can be written, it would still be one that reads
            raise


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
