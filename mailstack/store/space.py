"""Space given back to the file system, and SQLite's log kept short: in slices, while others write.

PostgreSQL does both by itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from mailstack.store.checkpoint import is_longer
from mailstack.store.engine import Database
from mailstack.store.sqlite import log_path, page_octets

SPARE_OCTETS: Final = 16 * 1024 * 1024
"""Free pages that stay in the file for the mail that comes next."""

_STEP_OCTETS: Final = 2 * 1024 * 1024
"""What moves in one transaction, in front of which nobody waits long."""

_State = tuple[int, int]
"""A log's size and when it was written: another one after each commit, and none of how long the log is."""


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
    """Copy the log back where so many octets of it are in use; and say whether that was all."""
    if not database.is_sqlite or not is_longer(log_path(str(database.path)), from_octets):
        return False
    return database.copy_log()


class QuietLog:
    """Copies the log back once nobody has written between two looks, so that a crash leaves little to do.

    While somebody writes, the Checkpointer of whoever does decides, and nobody gets in its way.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: _State | None = None
        self._copied: _State | None = None

    def look(self) -> bool:
        """Whether the log was copied back."""
        before, self._seen = self._seen, self._now()
        if self._seen in (None, self._copied) or self._seen != before:
            return False
        if not checkpoint(self._database):
            return False  # somebody reads from it still
        self._copied = self._seen
        return True

    def _now(self) -> _State | None:
        if not self._database.is_sqlite:
            return None
        try:
            file = os.stat(log_path(str(self._database.path)))
        except FileNotFoundError:
            return None
        return file.st_size, file.st_mtime_ns
