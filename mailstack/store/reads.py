"""Which messages have been downloaded: gathered in memory, written for many sessions at once.

A commit of its own for every RETR would cost more than the RETR. What a crash forgets is read a
little later than it was, which keeps the message a little longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from mailstack.errors import MailstackError
from mailstack.store import retention
from mailstack.store.clock import now
from mailstack.store.retention import Read
from mailstack.store.writer import Writer

_SECONDS: Final = 20.0
_AT_MOST: Final = 10_000


class Reads:
    """Belongs to the event loop; one write in _SECONDS at most, and none while nothing is read."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._waiting: dict[tuple[int, int], int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._writing: set[asyncio.Task[None]] = set()

    def note(self, account_id: int, uid: int) -> None:
        """The message has been sent whole; beyond a bound in memory it is not remembered."""
        if len(self._waiting) < _AT_MOST:
            self._waiting.setdefault((account_id, uid), now())
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SECONDS, self._begin)

    def drop(self, account_id: int, uids: Iterable[int]) -> None:
        """They are deleted: most clients download, delete and leave, and cost nothing here."""
        if self._waiting:
            for uid in uids:
                self._waiting.pop((account_id, uid), None)

    async def flush(self) -> None:
        """Write what is known now."""
        waiting, self._waiting = self._waiting, {}
        if waiting:
            job = [Read(account_id, uid, at) for (account_id, uid), at in waiting.items()]
            await self._writer.write(retention.mark_read, job, octets=100 * len(job))

    async def close(self) -> None:
        """Write the last ones; where that fails they count as unread."""
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*self._writing)
        with suppress(MailstackError):
            await self.flush()

    def _begin(self) -> None:
        self._timer = None
        task = asyncio.get_running_loop().create_task(self._flushed())
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _flushed(self) -> None:
        with suppress(MailstackError):
            await self.flush()
