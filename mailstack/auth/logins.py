"""Logging in: a name and a secret, or a name and a SCRAM proof, become an account or LoginRefused.

Whatever was wrong, the refusal is the same and leaves at the same time; see `throttle` for when.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

from mailstack.auth import prepare, scram, throttle
from mailstack.auth.memory import Known, LoginMemory
from mailstack.auth.passwords import Verifier, nobodys_hash
from mailstack.auth.sasl import Found
from mailstack.auth.throttle import Gates, Pace
from mailstack.errors import BadAddress, LoginRefused, StoreUnavailable, Temporary
from mailstack.mail.address import Mailbox, parse_mailbox
from mailstack.store import logins, routes
from mailstack.store.clock import now
from mailstack.store.logins import Attempt, Claim
from mailstack.store.routes import Credentials, NewHash
from mailstack.store.store import Store

REFUSAL_SECONDS: Final = 1.0
"""A refused login is answered no sooner than this, whatever went wrong and however fast that was."""

KEYS_SECONDS: Final = 0.03
"""SCRAM's salt is told no sooner: looking up a stranger takes other statements than a friend."""

_OFFER_SECONDS: Final = 5.0
"""How long it is believed that every account has keys, or not."""


class Guest(NamedTuple):
    """Who knocks: from where, and how often this session was refused already."""

    peer: str
    failures: int = 0


class Logins:
    """Checks who somebody is; belongs to one event loop, the hashes to the verifier's threads."""

    def __init__(
        self,
        store: Store,
        verifier: Verifier,
        *,
        default_domain: str | None,
        refusal_seconds: float = REFUSAL_SECONDS,
        scram_iterations: int = scram.ITERATIONS,
    ) -> None:
        self._store = store
        self._verifier = verifier
        self._default_domain = default_domain or "invalid"
        self._refusal_seconds = refusal_seconds
        self._iterations = scram_iterations
        self._memory = LoginMemory()
        self._checking: Counter[str] = Counter()  # logins under way that were not remembered
        self._gates = Gates()
        self._pace = Pace()
        self._scram_secret: bytes | None = None
        self._all_have_keys = False
        self._all_have_keys_until = 0.0

    def adopt(self, *, default_domain: str | None) -> None:
        """The domain of names that have none, from now on."""
        self._default_domain = default_domain or "invalid"
        self._memory = LoginMemory()  # which remembers names as they were said

    # -- with a password ---------------------------------------------------------------------------

    def recall(self, name: str, secret: str, guest: Guest, *, acting_as: str = "") -> Known | None:
        """This device's login, where it succeeded lately: true while the account has that hash and address.

        Where it has no address, the name was another one, and only `log_in` knows where that leads by now.
        Of another device's login nothing is known, and of one's own nothing while another guess at
        the name is under way: who guesses would learn without any delay which of many is right.
        """
        whose = _whose(name, acting_as, guest)
        return None if whose in self._checking else self._memory.recall(whose, secret)

    async def log_in(self, name: str, secret: str, guest: Guest, *, acting_as: str = "") -> Known:
        """The account that the name and the secret belong to; raises LoginRefused or TooManyGuesses."""
        whose = _whose(name, acting_as, guest)
        self._checking[whose] += 1
        try:
            known = await self._check(name, secret, guest, acting_as)
        finally:
            self._checking[whose] -= 1
            if not self._checking[whose]:
                del self._checking[whose]
        self._memory.remember(whose, secret, known)
        return known

    async def _check(self, name: str, secret: str, guest: Guest, acting_as: str) -> Known:
        began = time.monotonic()
        claim = await self._claim(name, acting_as, guest)
        async with self._gates.passed(
            claim.key, throttle.device(guest.peer), known=throttle.is_known(claim.history, now())
        ) as queued:
            waited = await self._wait(claim, guest, queued=queued)
            found = claim.credentials
            password_hash = found.password_hash if found else nobodys_hash()
            checking = time.monotonic()
            fits = self._fitted(claim, secret, _whose(name, acting_as, guest))
            fits = fits or await self._verifier.verify(secret, password_hash)
            checked = time.monotonic() - checking
            if found is None or not fits or found.disabled:
                await self._refuse(claim, guest, began=began, waited=waited, checked=checked)
            await self._welcome(claim, guest)
        assert found is not None
        own = claim.address if acting_as in ("", name) else ""
        return Known(found.account_id, found.name, await self._renewed(found, secret), own)

    def _fitted(self, claim: Claim, secret: str, whose: str) -> bool:
        """Whether the secret has fitted the hash in force lately, and nobody guesses meanwhile."""
        known = self._memory.recall(whose, secret) if self._checking[whose] == 1 else None
        found = claim.credentials
        return known is not None and found is not None and known.password_hash == found.password_hash

    async def _renewed(self, found: Credentials, secret: str) -> str:
        """The hash that is in force now; the old one where the store cannot write, on a full disk say.

        The old one, too, where the secret is wrong by now: whoever opens the maildrop finds another there.
        """
        new = await self._verifier.renewed(
            secret, found.password_hash, found.scram_keys, iterations=self._iterations
        )
        if new is None:
            return found.password_hash
        try:
            renewed = await self._store.write(
                routes.renew_hashes, NewHash(found.account_id, found.password_hash, *new)
            )
            if renewed:
                return new.password_hash
            # Another login has renewed it first, with a salt of its own, or the password was changed.
            in_force = await self._store.read(routes.password_hash, found.account_id)
        except Temporary:
            return found.password_hash
        if in_force is None or not await self._verifier.verify(secret, in_force):
            return found.password_hash
        return in_force

    # -- with SCRAM --------------------------------------------------------------------------------

    async def scram_works(self) -> bool:
        """Whether every enabled account has keys: a client that may choose SCRAM tries nothing else."""
        if time.monotonic() > self._all_have_keys_until:
            with suppress(StoreUnavailable):  # then what was true a moment ago has to do
                self._all_have_keys = not await self._store.read(logins.some_lack_keys)
            self._all_have_keys_until = time.monotonic() + _OFFER_SECONDS
        return self._all_have_keys

    async def find_keys(self, name: str, guest: Guest, *, acting_as: str = "") -> Found:
        """The keys of a name; of a stranger such as fit no password, always the same ones."""
        began = time.monotonic()
        if self._scram_secret is None:
            self._scram_secret = await self._store.read(logins.scram_secret)
            await self._verifier.load_scram()
        number = partial(scram.nobodys_number, server_secret=self._scram_secret)
        asked = name, self._spellings(name), throttle.device(guest.peer), now()
        claim, lent = await self._store.read(logins.look_up_keys, *asked, number=number)
        # Whoever is acted as: a salt that changes with that would tell that the name is somebody's.
        if claim.credentials and claim.credentials.scram_keys:
            keys = scram.parse(claim.credentials.scram_keys)
        else:
            iterations = scram.parse(lent).iterations if lent else self._iterations
            keys = scram.nobodys_keys(claim.key, self._scram_secret, iterations=iterations)
        whose = await self._acting(claim, acting_as)
        await _until(began + KEYS_SECONDS)
        return Found(keys, secrets.token_urlsafe(18), whose)

    async def judge(self, found: Found, guest: Guest, *, proven: bool) -> Known:
        """The account whose password a proof has shown; raises LoginRefused or TooManyGuesses."""
        began = time.monotonic()
        claim: Claim = found.whose
        account = claim.credentials
        async with self._gates.passed(
            claim.key, throttle.device(guest.peer), known=throttle.is_known(claim.history, now())
        ) as queued:
            waited = await self._wait(claim, guest, queued=queued)
            if account is None or not account.scram_keys or not proven or account.disabled:
                await self._refuse(claim, guest, began=began, waited=waited)
            await self._welcome(claim, guest)
        assert account is not None
        return Known(account.account_id, account.name, account.password_hash)

    # -- both --------------------------------------------------------------------------------------

    async def _claim(self, name: str, acting_as: str, guest: Guest) -> Claim:
        address = throttle.device(guest.peer)
        claim = await self._store.read(logins.look_up, name, self._spellings(name), address, now())
        return await self._acting(claim, acting_as)

    async def _acting(self, claim: Claim, acting_as: str) -> Claim:
        """What is left of a claim that says whom it acts as."""
        if acting_as:
            owner = await self._store.read(logins.owner, self._spellings(acting_as))
            if claim.credentials is None or owner != claim.credentials.account_id:
                # Somebody else's name: as wrong as a password can be (RFC 4616 §2).
                return claim._replace(credentials=None)
        return claim

    def _spellings(self, name: str) -> list[Mailbox]:
        found = []
        for each in prepare.spellings(name):
            with suppress(BadAddress):
                found.append(parse_mailbox(each if "@" in each else f"{each}@{self._default_domain}"))
        return found

    async def _wait(self, claim: Claim, guest: Guest, *, queued: bool) -> float:
        """Let a guess take its time, before anything can be learned from it; return how long."""
        history, at = claim.history, now()
        if queued:  # those before us may have failed
            address = throttle.device(guest.peer)
            history = await self._store.read(logins.history, claim.key, address, at)
        waited = throttle.wait_seconds(history, at) * self._refusal_seconds
        if waited:
            await asyncio.sleep(waited)
        return waited

    async def _refuse(
        self, claim: Claim, guest: Guest, *, began: float, waited: float, checked: float = 0.0
    ) -> None:
        at = now()
        known = throttle.is_known(claim.history, at)
        attempt = Attempt(claim.key, throttle.device(guest.peer), at, known=known)
        # A full disk must not make guessing faster, nor tell a wrong password from a right one.
        with suppress(Temporary):
            await self._store.write(logins.record_failures, attempt)
        moment = time.monotonic()
        leaves = throttle.refusal_seconds(
            self._refusal_seconds,
            checked=self._pace.after(checked, moment),
            waited=waited,
            elapsed=moment - began,
            session_failures=guest.failures,
        )
        await _until(began + leaves)
        raise LoginRefused("the name or the password is wrong")

    async def _welcome(self, claim: Claim, guest: Guest) -> None:
        """Remember the device, unless that was written down lately: a poll costs no write."""
        at = now()
        if throttle.is_news(claim.history, at):
            attempt = Attempt(claim.key, throttle.device(guest.peer), at)
            with suppress(Temporary):
                await self._store.write(logins.record_successes, attempt)


async def _until(moment: float) -> None:
    # A timer of uvloop may be up to a millisecond early, and that would tell who had to be waited for.
    while (left := moment - time.monotonic()) > 0:  # noqa: ASYNC110 (a clock, not a condition)
        await asyncio.sleep(left)


def _whose(name: str, acting_as: str, guest: Guest) -> str:
    """What a login is remembered by, besides its secret."""
    return f"{throttle.device(guest.peer)}\0{acting_as}\0{name}"
