"""SQLite's write-ahead log is copied back into the database beside the writer, not inside a commit.

A checkpoint inside a COMMIT makes everyone wait who waits for that commit. So a thread of its own
copies what is in the log, and waits for the disk, while new commits are appended to it; once it has
caught up, only a few pages are left, and the writer copies those between two batches and begins the
log anew.

The log's file keeps its size when the log begins anew, for writing over what is there is cheaper
than letting a file grow. So its size does not tell how long the log is; its frames do.
"""

from __future__ import annotations

import os
import struct
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from mailstack import log
from mailstack.store.engine import Database
from mailstack.store.sqlite import log_path

LOG_OCTETS: Final = 32 * 1024 * 1024
"""From this length on the log is copied back, but for that of a large database."""

LARGE_LOG_OCTETS: Final = 96 * 1024 * 1024
"""The log of a large database at most; one of 128 MiB SQLite would copy back itself, inside a commit."""

_COMMITS: Final = 16
_SECONDS: Final = 0.01
"""The log is looked at after so many commits, or so long: opening it costs a tenth of a small one."""

_PASSES: Final = 3
"""A log is copied so often before it begins anew: each time only what has come since the last one."""

_PAUSE_SECONDS: Final = 1.0
"""After somebody was in the way, who may be for long: only so often do those who write wait for them."""

# https://www.sqlite.org/fileformat2.html#walformat: the file's header, and that of each page in it.
_HEADER: Final = struct.Struct(">8xI4x8s8x")
"""The size of a page, and the salts: a frame belongs to the log as it is now if it has the same ones."""

_FRAME: Final = struct.Struct(">8x8s8x")


class Checkpointer:
    """Belongs to the writer: `after_commit` is called on its thread, after every batch."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._log = log_path(str(database.path))
        self._thread = _one_thread()
        self._long_octets = self._measured()
        self._copying: Future[bool] | None = None
        self._unseen = 0  # commits since the log was looked at
        self._seen_at = 0.0
        self._not_before = 0.0

    def after_commit(self) -> None:
        """Begin to copy where the log has grown long, or finish what was copied."""
        if self._copying is None:
            if self._look_is_due() and is_longer(self._log, self._long_octets):
                self._begin_to_copy()
        elif self._copying.done():
            if not (self._copying.result() and self._checkpoint("RESTART")):
                self._not_before = time.monotonic() + _PAUSE_SECONDS
            self._long_octets = self._measured()
            self._copying = None

    def _begin_to_copy(self) -> None:
        try:
            self._copying = self._thread.submit(self._copied)
        except RuntimeError as error:  # there can be no more threads now
            log.failure("checkpoint", error)
            self._thread = _one_thread()  # what it has not begun would be done later, and for nobody
            self._not_before = time.monotonic() + _PAUSE_SECONDS

    def _look_is_due(self) -> bool:
        self._unseen += 1
        now = time.monotonic()
        if now < self._not_before or (self._unseen < _COMMITS and now - self._seen_at < _SECONDS):
            return False
        self._unseen, self._seen_at = 0, now
        return True

    def close(self) -> None:
        """Wait for what is being copied."""
        self._thread.shutdown()

    def _measured(self) -> int:
        with suppress(OSError):
            disk = os.statvfs(str(self._database.path))
            return long_octets(self._database.octets, disk.f_bavail * disk.f_frsize)
        return LOG_OCTETS

    def _copied(self) -> bool:
        return all(self._checkpoint("PASSIVE") for _ in range(_PASSES))

    def _checkpoint(self, kind: str) -> bool:
        try:
            return self._database.checkpoint(kind)
        except Exception as error:  # whatever it is: mail goes on being written
            log.failure("checkpoint", error)  # the log stays as it is, and a later commit tries again
            return False


def _one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="checkpoint")


def long_octets(database_octets: int, free_octets: int) -> int:
    """From which length on a log is copied back, for a database of this size and what its disk has left.

    In a large store each maildrop has its newest entries on a page of its own, which commit after
    commit changes, and which is copied back once: the longer the log, the less there is to copy.
    """
    return max(LOG_OCTETS, min(database_octets // 32, free_octets // 8, LARGE_LOG_OCTETS))


def is_longer(path: str, octets: int) -> bool:
    """Whether the write-ahead log in the file has so many octets in use."""
    with suppress(OSError):
        if os.stat(path).st_size <= octets:
            return False
        with open(path, "rb", buffering=0) as file:
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                return False
            page_octets, salts = _HEADER.unpack(header)
            frame_octets = _FRAME.size + page_octets
            file.seek(_HEADER.size + octets // frame_octets * frame_octets)
            frame = file.read(_FRAME.size)
        return len(frame) == _FRAME.size and _FRAME.unpack(frame) == (salts,)
    return False
