"""What EXPIRE announces (RFC 2449 §6.7): how long the server keeps what a client leaves on it.

It comes from the limits that housekeeping enforces, never from a setting of its own.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Final

from mailstack.errors import StoreUnavailable
from mailstack.store import limits
from mailstack.store.limits import Expiry, Limits
from mailstack.store.store import Store

_FRESH_SECONDS: Final = 60.0


def announced(expiry: Expiry) -> str:
    """The argument of EXPIRE; USER tells whoever has not logged in that accounts differ."""
    days = "NEVER" if expiry.days is None else str(expiry.days)
    return f"{days} USER" if expiry.differs else days


class Expiries:
    """Asks the store; the answer for strangers, which takes all accounts, is kept for a minute."""

    def __init__(self, store: Store, default: Limits) -> None:
        self._store: Final = store
        self._default: Final = default
        self._of_all: Expiry | None = None
        self._fresh_until = 0.0

    async def of_all(self) -> Expiry | None:
        """The least of all accounts; None while a store that does not answer was never asked."""
        if time.monotonic() > self._fresh_until:
            # Before the question: who asks meanwhile gets the last answer and adds no work.
            self._fresh_until = time.monotonic() + _FRESH_SECONDS
            with suppress(StoreUnavailable):  # then what was true a moment ago has to do
                self._of_all = await self._store.read(limits.expiry, self._default)
        return self._of_all

    async def of_account(self, account_id: int) -> Expiry | None:
        """Of one account; None while the store does not answer."""
        with suppress(StoreUnavailable):
            return await self._store.read(limits.expiry, self._default, account_id)
        return None
