"""Bringing a database to this program's schema: the only module that needs alembic.

Two upgrades at once would both find the old schema and both change it: the second one waits for
the first, says so, and then finds nothing left to do.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text

from mailstack.errors import SchemaMismatch, StoreUnavailable
from mailstack.store import schema
from mailstack.store.engine import Database
from mailstack.store.tables import metadata

_WAITING: Final = "another upgrade of this database is running; waiting for it"

Report = Callable[[str], None]

_POSTGRESQL_LOCK = 0x6D61696C  # "mail": any number that is the same in every mailstack


def scripts() -> Path:
    """The folder of migrations: inside the installed package, else beside it in a checkout."""
    package = Path(__file__).parents[1]
    for place in (package / "_migrations", package.parent / "migrations"):
        if (place / "env.py").is_file():
            return place
    raise SchemaMismatch(
        f"this installation lacks its migrations (looked in {package}); install mailstack again"
    )


def newest() -> str:
    """The newest revision that the migrations can make."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def upgrade(
    database: Database,
    report: Report,
    *,
    revision: str = "head",
    first: Callable[[str], None] = lambda found: None,
) -> bool:
    """Bring the schema to `revision`; return whether anything had to be done.

    `first` gets the revision of an older schema, once no other upgrade can run.
    """
    return _migrate(database, report, command.upgrade, revision, first)


def downgrade(database: Database, report: Report, *, revision: str) -> bool:
    """Take the schema back to `revision` ("base" for none at all)."""
    return _migrate(database, report, command.downgrade, revision)


def differences(database: Database) -> list[str]:
    """Where the database's tables are not what this program's are, a sentence each."""
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = compare_metadata(context, metadata)
    return [f"the schema differs from this program's: {_said(each)}" for each in found]


def _said(difference: Any) -> str:
    """An operation of alembic's that would mend it, in words: ("add_column", None, "entry", Column)."""
    if isinstance(difference, list):
        return ", ".join(_said(each) for each in difference)
    kind, *about = difference
    names = [str(getattr(each, "name", each)) for each in about if each is not None]
    return f"{kind.replace('_', ' ')} {' '.join(names)}"


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts()))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _migrate(
    database: Database,
    report: Report,
    way: Callable[[Config, str], None],
    revision: str,
    first: Callable[[str], None] = lambda found: None,
) -> bool:
    with _alone(database, report), database.translated():
        with _own_connection(database) as connection:
            before, head = schema.revision(connection), newest()
            connection.rollback()
            if before is not None and before > head:
                schema.check(connection)
            if before is not None and before < head:
                first(before)
            if database.is_sqlite:
                # A table that a migration rebuilds must not take the rows of its children along.
                # The switch does nothing inside a transaction, so it goes past SQLAlchemy's BEGIN.
                _outside_transaction(connection, "PRAGMA foreign_keys=OFF")
            try:
                with database.pen:
                    way(_config(connection), revision)
            except CommandError as error:  # alembic misses a row of its own that was there before
                raise StoreUnavailable(f"the schema was not changed: {error}") from error
        with database.reading() as connection:
            after = schema.revision(connection)
        if before != after:
            report(f"the schema went from {before or 'nothing'} to {after or 'nothing'}")
        return before != after


@contextmanager
def _own_connection(database: Database) -> Iterator[Connection]:
    """A connection that is closed with the block, and whatever was switched or locked on it with it."""
    with database.engine.connect() as connection:
        connection.detach()
        yield connection


def _outside_transaction(connection: Connection, statement: str) -> None:
    cursor = connection.connection.cursor()
    cursor.execute(statement)
    cursor.close()


def _alone(database: Database, report: Report) -> AbstractContextManager[None]:
    if database.is_sqlite:
        return _holding_file(f"{database.path}-upgrade", report)
    return _holding_row(database, report)


@contextmanager
def _holding_file(path: str, report: Report) -> Iterator[None]:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with holding(descriptor, lambda: report(_WAITING)):
        yield


@contextmanager
def holding(descriptor: int, wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of an open file or folder, and close it; `wait` tells that another holds it first."""
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _holding_row(database: Database, report: Report) -> Iterator[None]:
    with database.translated(), _own_connection(database) as connection:
        if not connection.execute(text(f"SELECT pg_try_advisory_lock({_POSTGRESQL_LOCK})")).scalar_one():
            report(_WAITING)
            connection.execute(text(f"SELECT pg_advisory_lock({_POSTGRESQL_LOCK})"))
        connection.commit()
        yield
        # Whoever comes next need not wait for the server to see that the connection is closed.
        connection.execute(text(f"SELECT pg_advisory_unlock({_POSTGRESQL_LOCK})"))
