"""The directory: a forward-path leads to the accounts that take its mail."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from mailstack.errors import MailboxDisabled, MaildropFull
from mailstack.mail.address import Mailbox, fold_domain, parse_mailbox
from mailstack.mail.envelope import UNBOUNDED, Bound
from mailstack.store import quotas, routes
from mailstack.store.routes import Route
from mailstack.store.store import Store

_ROUTE_SECONDS: Final = 1.0
"""How long a route is believed: a changed account is noticed within this time."""

_UNANNOUNCED: Final = 2**63
"""What a message counts for that does not say its size: until the next look-up it may fill any quota."""

_REACHED: Final = 10_000
"""How many accounts all believed routes lead to: `all+1`, `all+2` ... may each lead to everybody."""


@dataclass(slots=True)
class _Known:
    """A route that was looked up lately, and what was promised to its accounts from then on."""

    until: float
    route: Route
    messages: int
    octets: int
    whatever_comes: Mapping[int, Bound] | None = field(init=False)
    """Who takes it, where no account has a quota or is disabled."""

    def __post_init__(self) -> None:
        unlimited = all(
            each.quota_octets is None and each.quota_messages is None and not each.disabled
            for each in self.route.accounts
        )
        self.whatever_comes = _unbounded(self.route) if unlimited else None

    def has_room_for(self, octets: int) -> bool:
        """Whether one message more certainly fits; who does not say its size is looked up anew."""
        self.messages += 1
        self.octets += octets
        return all(
            quotas.has_room(each, self.octets, messages=self.messages)
            and (octets or each.quota_octets is None)
            for each in self.route.accounts
        )


class Directory:
    """Answers who an address belongs to, from the accounts in the store."""

    def __init__(
        self, store: Store, *, hostname: str, default_domain: str | None, postmaster: str | None
    ) -> None:
        self._store = store
        self._hostname: Final = hostname
        self._routes: dict[Mailbox, _Known] = {}
        self.adopt(default_domain=default_domain, postmaster=postmaster)

    def adopt(self, *, default_domain: str | None, postmaster: str | None) -> None:
        """Use these from now on."""
        self._own_domain = default_domain or self._hostname
        self._hosts = frozenset({fold_domain(self._hostname), fold_domain(self._own_domain)})
        self._postmaster = parse_mailbox(postmaster) if postmaster else None
        self._routes.clear()
        self._reached = 0

    def full(self, path: Mailbox) -> Mailbox:
        """The path with its domain: a bare `postmaster` is the default domain's, else this host's."""
        return path if path.domain else path._replace(domain=self._own_domain)

    def route_at_once(self, path: Mailbox, *, octets: int = 0) -> Mapping[int, Bound] | None:
        """What `route` would say of a `full` path, without waiting; None where it has to be awaited."""
        known = self._routes.get(path)
        if known is not None and known.until >= time.monotonic():
            if known.whatever_comes is not None:
                return known.whatever_comes
            if known.has_room_for(octets):
                return _takers(known.route, octets)
        own = self._store.read_at_once(routes.own, path)
        return None if own is None else self._believed(path, own, octets)

    async def route(self, path: Mailbox, *, octets: int = 0) -> Mapping[int, Bound]:
        """The ids of who takes a message of so many octets for this forward-path, which is `full`.

        Each has the bound that holds on this way to it: with so much it takes no more, whoever else does.
        Raises NotOurDomain, NoSuchMailbox, MailboxDisabled, MaildropFull or NoPostmaster.
        """
        found = await self._store.read(routes.route, path, postmaster=self._postmaster, hosts=self._hosts)
        return self._believed(path, found, octets)

    def _believed(self, path: Mailbox, route: Route, octets: int) -> Mapping[int, Bound]:
        if (before := self._routes.pop(path, None)) is not None:
            self._reached -= len(before.route.accounts)
        self._reached += len(route.accounts)
        if self._reached > _REACHED:
            self._routes.clear()
            self._reached = len(route.accounts)
        known = _Known(time.monotonic() + _ROUTE_SECONDS, route, 1, octets or _UNANNOUNCED)
        self._routes[path] = known
        return _takers(route, octets) if known.whatever_comes is None else known.whatever_comes


def _takers(route: Route, octets: int) -> Mapping[int, Bound]:
    if route.to_postmaster:
        return _unbounded(route)
    enabled = [each for each in route.accounts if not each.disabled]
    if not enabled:
        raise MailboxDisabled("this mailbox is disabled")
    if quotas.in_the_way(enabled, octets):
        raise MaildropFull("this mailbox is full")
    return quotas.bounds(enabled)


def _unbounded(route: Route) -> Mapping[int, Bound]:
    return {each.account_id: UNBOUNDED for each in route.accounts}
