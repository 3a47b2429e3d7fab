"""The exclusive lock of a maildrop (RFC 1939 §4), which the kernel or the database frees by itself.

A lock that outlives its session is what users of POP3 curse most. Here nothing is written that
would have to be cleaned up: a process that dies, however it dies, has let go.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol

from mailstack.errors import LoggedInLately, MaildropInUse


class Holding(NamedTuple):
    """What is kept of a maildrop's last holder, in seconds since the epoch; zeros: nothing is known."""

    since: float
    logged_in: float
    holder: str

    def after(self, holder: str, *, login: bool) -> Holding:
        """What is to be kept once `holder` has it; whoever only keeps house is no login."""
        now = time.time()
        return Holding(now, now if login else self.logged_in, holder)

    def check_delay(self, seconds: float) -> None:
        """Raise LoggedInLately unless the last login was so long ago."""
        passed = time.time() - self.logged_in
        if 0 <= passed < seconds:  # a clock that was set back keeps nobody out
            raise LoggedInLately(
                f"the last login was {passed:.0f} seconds ago, wait {seconds - passed:.0f} more"
            )

    def in_use(self) -> MaildropInUse:
        """The refusal that says since when and from where."""
        if not self.since:
            return MaildropInUse("another session holds this maildrop")
        at = datetime.fromtimestamp(self.since, UTC)
        return MaildropInUse(f"held since {at:%H:%M:%S} UTC by a session from {self.holder}")


HOUSEKEEPING: Final = 0
"""Instead of an account's id: the lock of whoever removes what belongs to nothing. Ids begin at 1."""


class MaildropLock:
    """A lock that is held, until `release`."""

    __slots__ = ("_freeing", "_release", "backend")

    def __init__(
        self, release: Callable[[], asyncio.Task[None] | None], *, backend: int | None = None
    ) -> None:
        self._release: Callable[[], asyncio.Task[None] | None] | None = release
        self._freeing: asyncio.Task[None] | None = None
        self.backend: Final = backend
        """The PostgreSQL session that has the lock; None: the kernel has it, and frees it at once."""

    def release(self) -> None:
        """Let the maildrop go; a second call does nothing."""
        release, self._release = self._release, None
        if release is not None:
            self._freeing = release()

    async def released(self) -> None:
        """Let the maildrop go, and wait until whoever comes next can have it."""
        self.release()
        if self._freeing is not None:
            await asyncio.shield(self._freeing)


class MaildropLocks(Protocol):
    """What keeps two sessions out of one maildrop: FileLocks on one host, AdvisoryLocks across hosts."""

    async def hold(
        self, account_id: int, *, holder: str, login_delay_seconds: float | None = None
    ) -> MaildropLock:
        """Take the lock at once or raise MaildropInUse, saying since when and for whom it is held.

        A login says how long the one before it has to be ago, or else raises LoggedInLately; with
        None this is no login.
        """
        ...

    def hold_at_once(
        self, account_id: int, *, holder: str, login_delay_seconds: float | None = None
    ) -> MaildropLock | None:
        """The same where nobody has to be waited for; None where it takes `hold`."""
        ...

    async def settled(self) -> None:
        """Wait until whatever is being let go is free."""
        ...

    def close(self) -> None:
        """Let every lock go; nothing may be under way."""
        ...
