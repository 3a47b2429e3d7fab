"""A fair queue, across processes, in front of SQLite's one write lock.

SQLite's own busy handler sleeps and polls, so a process beside a busy writer may starve for
hundreds of milliseconds. Two `flock`s make a turnstile: whoever holds *next* is the first to get
*current*, and the writer that just left has to queue up behind it.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from types import TracebackType

from mailstack.errors import StoreUnavailable

PATIENCE_SECONDS = 30.0
"""How long a writer may keep the others waiting before they give up (a stopped process, a long repair)."""

_FIRST_PAUSE_SECONDS = 0.0001
_LONGEST_PAUSE_SECONDS = 0.002


class Turnstile:
    """`with turnstile:` lets one thread of all processes through at a time, first come, first served."""

    def __init__(self, path: str) -> None:
        self._paths = (path + "-next", path + "-current")
        self._threads = threading.Lock()
        self._files: tuple[int, int] | None = None

    def __enter__(self) -> None:
        if not self._threads.acquire(timeout=PATIENCE_SECONDS):
            raise _impatient()
        try:
            upcoming, current = self._open()
            # Whoever holds this one waits with a bound, so this wait has one, too.
            fcntl.flock(upcoming, fcntl.LOCK_EX)
            try:
                _take(current)
            finally:
                fcntl.flock(upcoming, fcntl.LOCK_UN)
        except BaseException:
            self._threads.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            assert self._files is not None
            fcntl.flock(self._files[1], fcntl.LOCK_UN)
        finally:
            self._threads.release()

    def _open(self) -> tuple[int, int]:
        if self._files is None:
            upcoming = _opened(self._paths[0])
            try:
                self._files = (upcoming, _opened(self._paths[1]))
            except StoreUnavailable:
                os.close(upcoming)  # whoever tries again and again must not run out of descriptors
                raise
        return self._files

    def close(self) -> None:
        """Give the two files back; the next `with` opens them again."""
        with self._threads:
            for descriptor in self._files or ():
                os.close(descriptor)
            self._files = None


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnavailable(f"cannot open {path}: {error.strerror}") from error


def _take(descriptor: int) -> None:
    """Take the lock, polling: flock knows no time limit, and only the one who is next ever polls."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise _impatient() from None
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _impatient() -> StoreUnavailable:
    return StoreUnavailable(f"another process has been writing to the database for {PATIENCE_SECONDS:.0f} s")
