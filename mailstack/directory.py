"""The directory: a forward-path leads to accounts, a login name and a secret to one account."""

from __future__ import annotations

import asyncio
import time
from typing import Final, NamedTuple

from mailstack.auth import passwords
from mailstack.auth.memory import Known, LoginMemory
from mailstack.auth.passwords import Verifier
from mailstack.errors import BadAddress, LoginRefused, MailboxDisabled, MaildropFull, Temporary
from mailstack.mail.address import Mailbox, parse_mailbox
from mailstack.store import routes
from mailstack.store.routes import Credentials, NewHash, Route
from mailstack.store.routing import Reached
from mailstack.store.store import Store

REFUSAL_SECONDS: Final = 1.0
"""A refused login is answered no sooner than this, whatever went wrong and however fast that was."""

_ROUTE_SECONDS: Final = 1.0
"""How long a route is believed: a changed account is noticed within this time."""

_ROUTES: Final = 10_000


class Account(NamedTuple):
    """Who has logged in."""

    id: int
    name: str


class Directory:
    """Answers who an address and a password belong to, from the accounts in the store."""

    def __init__(
        self,
        store: Store,
        verifier: Verifier,
        *,
        default_domain: str | None,
        postmaster: str | None,
        refusal_seconds: float = REFUSAL_SECONDS,
    ) -> None:
        self._store = store
        self._verifier = verifier
        self._default_domain = default_domain
        self._postmaster = parse_mailbox(postmaster) if postmaster else None
        self._refusal_seconds = refusal_seconds
        self._memory = LoginMemory()
        self._routes: dict[Mailbox, tuple[float, Route]] = {}

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
        if len(self._routes) >= _ROUTES:
            self._routes.clear()
        self._routes[path] = (time.monotonic() + _ROUTE_SECONDS, found)
        return _takers(found, octets)

    # -- logging in --------------------------------------------------------------------------------

    def recall(self, name: str, secret: str) -> Known | None:
        """The login, where it succeeded lately: true as long as the account still has that hash."""
        return self._memory.recall(name, secret)

    async def log_in(self, name: str, secret: str, *, peer: str) -> Account:
        """The account that the name and the secret belong to.

        Raises LoginRefused, after the same time and with the same text whatever was wrong.
        """
        began = time.monotonic()
        found = await self._credentials(name)
        password_hash = found.password_hash if found else await self._verifier.nobodys_hash()
        fits = await self._verifier.verify(secret, password_hash)
        if found is None or not fits or found.disabled:
            await asyncio.sleep(max(0.0, began + self._refusal_seconds - time.monotonic()))
            raise LoginRefused("the name or the password is wrong")
        if passwords.needs_rehash(password_hash):
            password_hash = await self._renewed(found, secret)
        self._memory.remember(name, secret, Known(found.account_id, found.name, password_hash))
        return Account(found.account_id, found.name)

    async def _renewed(self, found: Credentials, secret: str) -> str:
        """The hash that is in force now; the old one where the store cannot write, on a full disk say."""
        new = NewHash(found.account_id, found.password_hash, await self._verifier.rehash(secret))
        try:
            await self._store.write(routes.renew_hashes, new)
        except Temporary:
            return found.password_hash
        return new.new

    async def _credentials(self, name: str) -> Credentials | None:
        if "@" not in name:
            name = f"{name}@{self._default_domain}"
        try:
            return await self._store.read(routes.credentials, parse_mailbox(name))
        except BadAddress:
            return None


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
