"""The directory: a forward-path leads to accounts, a login name and a secret to one account."""

from __future__ import annotations

import time
from typing import Final

from mailstack.auth import scram
from mailstack.auth.logins import REFUSAL_SECONDS, Logins
from mailstack.auth.passwords import Verifier
from mailstack.errors import MailboxDisabled, MaildropFull
from mailstack.mail.address import Mailbox, parse_mailbox
from mailstack.store import routes
from mailstack.store.routes import Route
from mailstack.store.routing import Reached
from mailstack.store.store import Store

_ROUTE_SECONDS: Final = 1.0
"""How long a route is believed: a changed account is noticed within this time."""

_REACHED: Final = 10_000
"""How many accounts all believed routes lead to: `all+1`, `all+2` ... may each lead to everybody."""


class Directory:
    """Answers who an address belongs to, and a login name (`logins`), from the accounts in the store."""

    def __init__(
        self,
        store: Store,
        verifier: Verifier,
        *,
        default_domain: str | None,
        postmaster: str | None,
        refusal_seconds: float = REFUSAL_SECONDS,
        scram_iterations: int = scram.ITERATIONS,
    ) -> None:
        self.logins: Final = Logins(
            store,
            verifier,
            default_domain=default_domain,
            refusal_seconds=refusal_seconds,
            scram_iterations=scram_iterations,
        )
        self._store = store
        self._default_domain = default_domain
        self._postmaster = parse_mailbox(postmaster) if postmaster else None
        self._routes: dict[Mailbox, tuple[float, Route]] = {}
        self._reached = 0

    def adopt(self, *, default_domain: str | None, postmaster: str | None) -> None:
        """Use these from now on."""
        self._default_domain = default_domain
        self._postmaster = parse_mailbox(postmaster) if postmaster else None
        self.logins.adopt(default_domain=default_domain)
        self._routes.clear()

    # -- mail in -----------------------------------------------------------------------------------

    def known_route(self, path: Mailbox, *, octets: int = 0) -> tuple[Reached, ...] | None:
        """What `route` would say, where that was asked so lately that nobody has to wait for it."""
        known = self._routes.get(path)
        if known is None or known[0] < time.monotonic():
            return None
        return _takers(known[1], octets)

    async def route(self, path: Mailbox, *, octets: int = 0) -> tuple[Reached, ...]:
        """The accounts that take a message of so many octets for this forward-path.

        Raises NotOurDomain, NoSuchMailbox, MailboxDisabled, MaildropFull or NoPostmaster.
        """
        # A bare `postmaster` is the default domain's (RFC 5321 §4.5.1).
        full = path if path.domain else path._replace(domain=self._default_domain or "invalid")
        found = await self._store.read(routes.route, full, postmaster=self._postmaster)
        self._believe(path, found)
        return _takers(found, octets)

    def _believe(self, path: Mailbox, route: Route) -> None:
        self._reached += len(route.accounts)
        if self._reached > _REACHED:
            self._routes.clear()
            self._reached = len(route.accounts)
        self._routes[path] = (time.monotonic() + _ROUTE_SECONDS, route)


def _takers(route: Route, octets: int) -> tuple[Reached, ...]:
    if route.to_postmaster:
        return route.accounts
    enabled = tuple(reached for reached in route.accounts if not reached.disabled)
    if not enabled:
        raise MailboxDisabled("this mailbox is disabled")
    # One full maildrop must not keep mail for a group from the others, nor may its owner lose what
    # the sender was told is delivered: a group is refused only when nobody in it has room.
    if not any(_has_room(reached, octets) for reached in enabled):
        raise MaildropFull("this mailbox is full")
    return enabled


def _has_room(reached: Reached, octets: int) -> bool:
    if reached.quota_messages is not None and reached.messages >= reached.quota_messages:
        return False
    return reached.quota_octets is None or reached.octets + octets < reached.quota_octets
