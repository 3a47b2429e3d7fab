"""INSERT ... ON CONFLICT: both databases have it, in words of their own, and SQLAlchemy's INSERT has not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Table
from sqlalchemy.dialects import sqlite

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql


def insert(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT of that kind of database, for its `on_conflict_do_update`."""
    if dialect == "postgresql":
        from sqlalchemy.dialects import postgresql  # 3 MiB, which a process on SQLite is spared

        return postgresql.insert(table)
    return sqlite.insert(table)
