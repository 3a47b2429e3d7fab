"""Which messages have been downloaded: gathered in memory, written for many sessions at once.

A message that was sent may never have been read: the octets lie in the buffers of either side, and of a
client that vanishes nobody knows how many it had. Only QUIT tells, behind all that came before it (RFC
1939 §6). A commit of its own for every session would cost more than the session; what a crash forgets
counts as unread, which keeps the message longer.
"""

from __future__ import annotations

from typing import Final

from mailstack.store import retention
from mailstack.store.clock import now
from mailstack.store.later import Later
from mailstack.store.retention import Read
from mailstack.store.runs import Runs
from mailstack.store.writer import Writer

_SECONDS: Final = 20.0
_AT_MOST: Final = 10_000
"""So many runs of messages."""


class Reads:
    """Belongs to the event loop; one write in _SECONDS at most, and none while nothing is read."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._waiting: dict[tuple[int, int, int], int] = {}
        self._later = Later(self.flush, _SECONDS, wants_more=lambda: bool(self._waiting))

    def note(self, account_id: int, uids: Runs) -> None:
        """They have been downloaded; beyond a bound in memory that is not remembered."""
        waiting, at = self._waiting, now()
        if not waiting:  # else it was asked for by the first one
            self._later.ask()
        for first, last in uids:
            if len(waiting) >= _AT_MOST:
                break
            waiting.setdefault((account_id, first, last), at)

    async def flush(self) -> None:
        """Write what is known now."""
        waiting, self._waiting = self._waiting, {}
        if waiting:
            job = [Read(*run, at) for run, at in waiting.items()]
            await self._writer.write(retention.mark_read, job, octets=100 * len(job))

    async def close(self) -> None:
        """Write the last ones; where that fails they count as unread."""
        await self._later.close()
