"""Which messages have been downloaded: gathered in memory, written for many sessions at once.

A commit of its own for every RETR would cost more than the RETR. What a crash forgets is read a
little later than it was, which keeps the message a little longer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mailstack.store import retention
from mailstack.store.clock import now
from mailstack.store.later import Later
from mailstack.store.retention import Read
from mailstack.store.writer import Writer

_SECONDS: Final = 20.0
_AT_MOST: Final = 10_000


class Reads:
    """Belongs to the event loop; one write in _SECONDS at most, and none while nothing is read."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._waiting: dict[tuple[int, int], int] = {}
        self._later = Later(self.flush, _SECONDS, wants_more=lambda: bool(self._waiting))

    def note(self, account_id: int, uid: int) -> None:
        """The message has been sent whole; beyond a bound in memory it is not remembered."""
        waiting = self._waiting
        if not waiting:  # else it was asked for by the first one
            self._later.ask()
        if len(waiting) < _AT_MOST:
            waiting.setdefault((account_id, uid), now())

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
        await self._later.close()
