"""SQLite's write-ahead log is copied back into the database beside the writer, not inside a commit.

A checkpoint inside a COMMIT makes everyone wait who waits for that commit. So a thread of its own
copies what is in the log while new commits are appended to it; once it has caught up, only a few
pages are left, and the writer copies those between two batches and begins the log anew.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from mailstack import log
from mailstack.errors import StoreFull, StoreUnavailable
from mailstack.store.engine import Database

LOG_OCTETS: Final = 32 * 1024 * 1024
"""From this size on the log is copied back; a longer one makes reading slower."""


class Checkpointer:
    """Belongs to the writer: `after_commit` is called on its thread, after every batch."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._log = f"{database.path}-wal"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._copying = False
        self._caught_up = False

    def after_commit(self) -> None:
        """Begin to copy where the log has grown long, or finish what was copied."""
        if self._caught_up:
            self._caught_up = False
            self._checkpoint("RESTART")
            self._copying = False
        elif not self._copying and self._log_octets() > LOG_OCTETS:
            self._copying = True
            self._thread.submit(self._copy)

    def close(self) -> None:
        """Wait for what is being copied."""
        self._thread.shutdown()

    def _copy(self) -> None:
        self._checkpoint("PASSIVE")
        self._caught_up = True

    def _checkpoint(self, kind: str) -> None:
        try:
            self._database.checkpoint(kind)
        except (StoreFull, StoreUnavailable) as error:
            log.failure("checkpoint", error)  # the log stays as it is, and the next commit tries again

    def _log_octets(self) -> int:
        with suppress(OSError):
            return os.stat(self._log).st_size
        return 0
