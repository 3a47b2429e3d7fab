"""Can every table and index be read to its end? What a damaged page takes with it is named.

Content is not read here: it is most of the store, and is compared with its digests elsewhere. Nothing
of this can be mended: SQLite cannot even drop an index one of whose pages is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from sqlalchemy import Connection

from mailstack.errors import StoreDamaged
from mailstack.store.engine import Database
from mailstack.store.tables import content, metadata

UNREADABLE: Final = "cannot be read: the database is damaged there"


class Scan(NamedTuple):
    """A table, or one of SQLite's indexes, and the statement that goes through all of it."""

    name: str
    statement: str


def scans(database: Database) -> list[Scan]:
    """Everything but content."""
    if database.is_sqlite:
        with database.reading() as connection:
            return list(_of_sqlite(connection))
    quoted = database.engine.dialect.identifier_preparer.quote
    return [
        Scan(f"table {table.name}", f"SELECT count(*) FROM {quoted(table.name)}")
        for table in metadata.sorted_tables
        if table is not content
    ]


def can_be_read(database: Database, scan: Scan) -> bool:
    """Whether it can be read to its end."""
    try:
        with database.reading() as connection:
            connection.exec_driver_sql(scan.statement)
    except StoreDamaged:
        return False
    return True


def _of_sqlite(connection: Connection) -> Iterator[Scan]:
    wanted = "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_master"
    for kind, name, table, sql in connection.exec_driver_sql(wanted):
        if kind == "table" and name != content.name:
            yield Scan(f"table {name}", f'SELECT count(*) FROM "{table}" NOT INDEXED')
        elif kind == "index":
            _, _, condition = sql.partition(" WHERE ")  # a partial index serves only its own condition
            statement = f'SELECT count(*) FROM "{table}" INDEXED BY "{name}" WHERE {condition or 1}'
            yield Scan(f"index {name}", statement)
