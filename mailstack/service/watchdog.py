"""Whether the event loop is deaf: how much CPU time of its own it spends without listening to anybody.

The clock is the thread's own, so a machine that is busy with other things is not blamed on us.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from mailstack import log

DEAF_SECONDS: Final = 0.05
_BEAT_SECONDS: Final = 0.01


class Watchdog:
    """A beat on the running loop. What lies between two beats, and is more than usual, is told in the log."""

    def __init__(self, *, beat_seconds: float = _BEAT_SECONDS, deaf_seconds: float = DEAF_SECONDS) -> None:
        self.worst_seconds = 0.0
        """The most CPU time that was spent between two beats."""
        self._beat_seconds = beat_seconds
        self._deaf_seconds = deaf_seconds
        self._loop = asyncio.get_running_loop()
        self._spent = time.thread_time()
        self._timer = self._loop.call_later(beat_seconds, self._beat)

    def _beat(self) -> None:
        spent = time.thread_time()
        seconds, self._spent = spent - self._spent, spent
        self.worst_seconds = max(self.worst_seconds, seconds)
        if seconds > self._deaf_seconds:
            log.event("loop was deaf", level=logging.WARNING, milliseconds=round(seconds * 1000))
        self._timer = self._loop.call_later(self._beat_seconds, self._beat)

    def close(self) -> None:
        """End the beat."""
        self._timer.cancel()


class WatchdogOfDebug:
    """A watchdog while the log's level is `debug`, which a reload may change."""

    def __init__(self, level: str) -> None:
        self._watchdog: Watchdog | None = None
        self.adopt(level)

    def adopt(self, level: str) -> None:
        """Go by this level from now on."""
        if level != "debug":
            self.close()
        elif self._watchdog is None:
            self._watchdog = Watchdog()

    def close(self) -> None:
        """End the beat, if there is one."""
        if self._watchdog is not None:
            self._watchdog.close()
            self._watchdog = None
