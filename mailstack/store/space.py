"""Space given back to the file system, and SQLite's log kept short: in slices, while others write.

PostgreSQL does both by itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from mailstack.store.engine import Database
from mailstack.store.sqlite import log_path, page_octets

SPARE_OCTETS: Final = 16 * 1024 * 1024
"""Free pages that stay in the file for the mail that comes next."""

_STEP_OCTETS: Final = 2 * 1024 * 1024
"""What moves in one transaction, in front of which nobody waits long."""


def reclaim(database: Database, *, spare_octets: int = SPARE_OCTETS) -> Iterator[int]:
    """Shorten the file by its free pages, some a transaction; yields the octets of each step."""
    if not database.is_sqlite:
        return
    while True:
        with database.writing() as connection:
            free = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
            octets = page_octets(connection)
            pages = min(free - spare_octets // octets, _STEP_OCTETS // octets)
            if pages <= 0:
                return
            for _ in range(pages):  # Python's driver steps a statement without columns once: one page
                connection.exec_driver_sql("PRAGMA incremental_vacuum(1)")
            left = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
        if left >= free:
            return  # a file from before there was incremental vacuum
        yield int(free - left) * octets


def checkpoint(database: Database, *, from_octets: int = 0) -> bool:
    """Move the log into the database, without waiting for anybody; return whether there was a reason to."""
    if not database.is_sqlite or log_octets(database) < max(1, from_octets):
        return False
    with database.translated():
        connection = database.engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        finally:
            connection.close()
    return True


def log_octets(database: Database) -> int:
    """How long the log is now."""
    try:
        return os.stat(log_path(str(database.path))).st_size
    except FileNotFoundError:
        return 0
