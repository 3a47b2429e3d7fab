"""The directory: a forward-path leads to the accounts that take its mail."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

from mailstack.errors import MailboxDisabled, MaildropFull
from mailstack.mail.address import Mailbox, fold_domain, parse_mailbox
from mailstack.store import routes
from mailstack.store.routes import Route
from mailstack.store.routing import Reached
from mailstack.store.store import Store

_ROUTE_SECONDS: Final = 1.0
"""How long a route is believed: a changed account is noticed within this time."""

_GROUP_TIMES: Final = 2
"""How many times its quota a maildrop may have in it until mail for a group with it is refused."""

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
    unlimited: bool = field(init=False)
    """Whether all its accounts take whatever comes."""

    def __post_init__(self) -> None:
        self.unlimited = all(
            each.quota_octets is None and each.quota_messages is None and not each.disabled
            for each in self.route.accounts
        )

    def has_room_for(self, octets: int) -> bool:
        """Whether one message more certainly fits; who does not say its size is looked up anew."""
        self.messages += 1
        self.octets += octets
        return all(
            _has_room(each, self.octets, messages=self.messages) and (octets or each.quota_octets is None)
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
        self._reached = 0
        self.adopt(default_domain=default_domain, postmaster=postmaster)

    def adopt(self, *, default_domain: str | None, postmaster: str | None) -> None:
        """Use these from now on."""
        self._own_domain = default_domain or self._hostname
        self._hosts = frozenset({fold_domain(self._hostname), fold_domain(self._own_domain)})
        self._postmaster = parse_mailbox(postmaster) if postmaster else None
        self._routes.clear()

    def full(self, path: Mailbox) -> Mailbox:
        """The path with its domain: a bare `postmaster` is the default domain's, else this host's."""
        return path if path.domain else path._replace(domain=self._own_domain)

    def route_at_once(self, path: Mailbox, *, octets: int = 0) -> tuple[Reached, ...] | None:
        """What `route` would say of a `full` path, without waiting; None where it has to be awaited."""
        known = self._routes.get(path)
        if known is not None and known.until >= time.monotonic():
            if known.unlimited:
                return known.route.accounts
            if known.has_room_for(octets):
                return _takers(known.route, octets)
        own = self._store.read_at_once(routes.own, path)
        return None if own is None else self._believed(path, own, octets)

    async def route(self, path: Mailbox, *, octets: int = 0) -> tuple[Reached, ...]:
        """The accounts that take a message of so many octets for this forward-path, which is `full`.

        Each has the quota that holds on this way to it: with so much it takes no more, whoever else does.
        Raises NotOurDomain, NoSuchMailbox, MailboxDisabled, MaildropFull or NoPostmaster.
        """
        found = await self._store.read(routes.route, path, postmaster=self._postmaster, hosts=self._hosts)
        return self._believed(path, found, octets)

    def _believed(self, path: Mailbox, route: Route, octets: int) -> tuple[Reached, ...]:
        self._reached += len(route.accounts)
        if self._reached > _REACHED:
            self._routes.clear()
            self._reached = len(route.accounts)
        self._routes[path] = _Known(time.monotonic() + _ROUTE_SECONDS, route, 1, octets or _UNANNOUNCED)
        return _takers(route, octets)


def _takers(route: Route, octets: int) -> tuple[Reached, ...]:
    if route.to_postmaster:
        return tuple(each._replace(quota_octets=None, quota_messages=None) for each in route.accounts)
    enabled = tuple(reached for reached in route.accounts if not reached.disabled)
    if not enabled:
        raise MailboxDisabled("this mailbox is disabled")
    # One full maildrop must not keep mail for a group from the others, nor may its owner lose what
    # the sender was told is delivered: it takes the group's mail for as long as somebody has room, and
    # only where it has twice its quota is that refused to all.
    has_room = any(_has_room(reached, octets) for reached in enabled)
    if len(enabled) > 1:
        enabled = tuple(map(_in_group, enabled))
        has_room = has_room and all(_has_room(reached, 0) for reached in enabled)
    if not has_room:
        raise MaildropFull("this mailbox is full")
    return enabled


def _in_group(reached: Reached) -> Reached:
    octets, messages = reached.quota_octets, reached.quota_messages
    return reached._replace(
        quota_octets=None if octets is None else _GROUP_TIMES * octets,
        quota_messages=None if messages is None else _GROUP_TIMES * messages,
    )


def _has_room(reached: Reached, octets: int, *, messages: int = 1) -> bool:
    if reached.quota_messages is not None and reached.messages + messages > reached.quota_messages:
        return False
    return reached.quota_octets is None or reached.octets + octets < reached.quota_octets
