"""Which schema this program was written for, and whether the database has it."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, inspect, text

from mailstack.errors import SchemaMismatch

HEAD: Final = "0009"
"""The newest revision in `migrations/versions`; a test compares the two."""


def revision(connection: Connection) -> str | None:
    """The revision of the database's schema, or None where there is no schema at all."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def check(connection: Connection) -> None:
    """Raise SchemaMismatch, naming the command that helps, unless the schema is ours."""
    found = revision(connection)
    if found == HEAD:
        return
    if found is None:
        raise SchemaMismatch("the database is empty; run: mailstack database upgrade")
    if found < HEAD:
        raise SchemaMismatch(
            f"the database has schema {found} and this program needs {HEAD}; run: mailstack database upgrade"
        )
    raise SchemaMismatch(
        f"the database has schema {found}, newer than this program's {HEAD}; install the newer mailstack"
    )
