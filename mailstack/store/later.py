"""Writes that can wait: asked for by many, done once for all of them some seconds later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from mailstack.errors import MailstackError


class Later:
    """Belongs to the event loop; one flush in so many seconds at most, and none while nobody asks."""

    def __init__(
        self, flush: Callable[[], Awaitable[None]], seconds: float, *, wants_more: Callable[[], bool]
    ) -> None:
        """`wants_more`: whether a flush that failed has left something for the next one."""
        self._flush = flush
        self._seconds = seconds
        self._wants_more = wants_more
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: set[asyncio.Task[None]] = set()

    def ask(self) -> None:
        """Have it flushed, unless that is to come already."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._begin)

    async def close(self) -> None:
        """Flush for the last time; what fails now is lost."""
        self._cancel()
        await asyncio.gather(*self._flushing)
        with suppress(MailstackError):
            await self._flush()
        self._cancel()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self) -> None:
        self._timer = None
        task = asyncio.get_running_loop().create_task(self._flushed())
        self._flushing.add(task)
        task.add_done_callback(self._flushing.discard)

    async def _flushed(self) -> None:
        try:
            await self._flush()
        except MailstackError:
            if self._wants_more():
                self.ask()
