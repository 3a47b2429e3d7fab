"""Runs the migrations on the connection that `mailstack.store.migrate` hands over.

All of them in one transaction: a schema is either at the old revision or at the new one.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from mailstack.store.tables import metadata


def migrate(connection: Connection) -> None:
    """Run what is asked for, in one transaction that takes the write lock at once."""
    sqlite = connection.dialect.name == "sqlite"
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=True,  # SQLite alters a table by making it anew
        transactional_ddl=True,
        compare_type=True,
    )
    writing = connection.execution_options(mailstack_writing=True)
    with writing.begin():
        if not sqlite:
            writing.exec_driver_sql("SET LOCAL lock_timeout = '30s'")
        context.run_migrations()
        if sqlite and (broken := writing.exec_driver_sql("PRAGMA foreign_key_check").fetchall()):
            raise RuntimeError(f"the migration would leave rows without their parent: {broken[:5]}")


given = context.config.attributes.get("connection")
if given is None:
    raise SystemExit("run: mailstack database upgrade")
migrate(given)
