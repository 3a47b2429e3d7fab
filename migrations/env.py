"""Runs the migrations on the connection that `mailstack.store.migrate` hands over.

All of them in one transaction: a schema is either at the old revision or at the new one.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, event

from mailstack.errors import StoreUnavailable
from mailstack.store import sqlite
from mailstack.store.tables import metadata


def migrate(connection: Connection) -> None:
    """Run what is asked for, in one transaction; SQLite's has the write lock from its beginning."""
    on_sqlite = connection.dialect.name == "sqlite"
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=True,  # SQLite alters a table by making it anew
        transactional_ddl=True,
        compare_type=True,
    )
    with sqlite.write_transaction(connection) if on_sqlite else connection.begin():
        if on_sqlite:
            event.listen(connection, "before_cursor_execute", _still_in_transaction)
        else:
            connection.exec_driver_sql("SET LOCAL lock_timeout = '30s'")
        context.run_migrations()
        if on_sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()):
            raise RuntimeError(f"the migration would leave rows without their parent: {broken[:5]}")


def _still_in_transaction(connection: Connection, *_: object) -> None:
    """SQLite rolls back by itself on a full disk, say; what came after that would be done on its own."""
    if not connection.connection.dbapi_connection.in_transaction:  # type: ignore[union-attr]
        raise StoreUnavailable("the schema was not changed: the database has undone it (is the disk full?)")


given = context.config.attributes.get("connection")
if given is None:
    raise SystemExit("run: mailstack database upgrade")
migrate(given)
