"""The sign of life: told to the service manager after a read through the store has come back, not before.

A process whose loop is stuck, whose reader threads or writer hang, or whose database does not answer at all
says nothing, and is ended and started again by WatchdogSec=. A database that refuses is another matter: no
restart would mend it, and who goes on can at least tell senders to come back later.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol

from mailstack import log
from mailstack.errors import MailstackError, StoreUnavailable
from mailstack.service.systemd import Manager, status
from mailstack.store.store import Store

STATUS_SECONDS: Final = 10.0
"""How often the line of `systemctl status` is made anew where no watchdog wants to hear more often."""

PATIENCE_SECONDS: Final = 600.0
"""So long senders wait for an answer to their mail (RFC 5321 §4.5.3.2.6): a restart costs nobody theirs."""

READY: Final = "ready"
"""What a process prints once it serves."""


class HasSessions(Protocol):
    """What is known here of a listener."""

    @property
    def sessions(self) -> int:
        """How many connections are open."""
        ...


class Heartbeat:
    """What the service manager knows of this process."""

    def __init__(
        self, manager: Manager, store: Store, names: Sequence[str], listeners: Sequence[HasSessions]
    ) -> None:
        self._manager = manager
        self._store = store
        self._serving = f"serving {', '.join(names)}" if names else "keeping house"
        self._listeners = listeners
        self._trouble = ""
        self.needs_restart: Sequence[str] = ()
        """Settings that have changed since the start and count from the next one on."""

    def status(self) -> str:
        """One line for people."""
        count = sum(listener.sessions for listener in self._listeners)
        parts = [self._serving, f"{count} connection{'' if count == 1 else 's'}"]
        if self.needs_restart:
            parts.append(f"a restart is needed for {', '.join(self.needs_restart)}")
        if self._trouble:
            parts.append(self._trouble)
        return "; ".join(parts)

    def ready(self) -> None:
        """Started, or done with a reload."""
        self._manager.notify("READY=1", status(self.status()))

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        self._manager.reloading()

    def stopping(self) -> None:
        """Nothing more is accepted."""
        self._manager.notify("STOPPING=1", status("letting what is under way end"))

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Beat for as long as the block lasts, where anybody listens."""
        if not self._manager.listens:
            yield
            return
        watched = self._manager.watchdog_seconds
        task = asyncio.create_task(self._beats(min(STATUS_SECONDS, (watched or STATUS_SECONDS) / 3)))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _beats(self, seconds: float) -> None:
        while True:
            try:
                await self._beat()
            except Exception as error:  # which is no sign of life
                log.failure("heartbeat", error)
            await asyncio.sleep(seconds)

    async def _beat(self) -> None:
        try:
            await self._store.check()
            self._trouble = ""
        except MailstackError as error:
            self._trouble = f"the store refuses: {error}"
        if self._store.writing_seconds > PATIENCE_SECONDS:
            raise StoreUnavailable(f"mail has been written for {PATIENCE_SECONDS:.0f} seconds without an end")
        self._manager.notify("WATCHDOG=1", status(self.status()))
