"""What a session asks for, from the store and the logins; and the maildrop's lock."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from mailstack.auth.logins import Guest
from mailstack.auth.mechanisms import offered
from mailstack.auth.memory import Known
from mailstack.errors import LoginRefused, NoSuchMailbox, StoreUnavailable
from mailstack.pop3.asks import (
    Ask,
    Authenticate,
    Enter,
    Expunge,
    FindKeys,
    Judge,
    LoadExpiry,
    LoadLayout,
    LoadListing,
    LoadMechanisms,
    LoadUniqueIds,
    LogIn,
    OpenMessage,
)
from mailstack.pop3.surroundings import Surroundings
from mailstack.store.events import Kind, account_mark
from mailstack.store.limits import Expiry
from mailstack.store.locks import MaildropLock
from mailstack.store.messages import Snapshot
from mailstack.store.runs import Runs
from mailstack.store.walk import Content, Walk

_TRIED: Final = 100
"""Characters of a name that are told: by mistake it may be a password, and from strangers anything."""

_LOST: Final = "the lock of the maildrop was lost"
"""It died with its database connection; another session may work here by now."""


class Answers:
    """One connection's way to the mail: it holds the lock from login until `close`."""

    __slots__ = (
        "_expiries",
        "_known",
        "_last_lock",
        "_last_uid",
        "_lock",
        "_login_delay_seconds",
        "_logins",
        "_losses",
        "_peer",
        "_store",
        "_walk",
        "account",
        "account_id",
        "expunging",
        "refused",
        "tried",
    )

    def __init__(self, surroundings: Surroundings, *, peer: str) -> None:
        self._store: Final = surroundings.store
        self._logins: Final = surroundings.logins
        self._expiries: Final = surroundings.expiries
        self._login_delay_seconds: Final = surroundings.settings.login_delay_seconds
        self._peer: Final = peer
        self._lock: MaildropLock | None = None
        self._last_lock: MaildropLock | None = None  # the one that `close` has let go
        self._losses = 0  # how often the locks were lost, this one or none
        self._last_uid = 0
        self._walk: Walk | None = None  # from the first message that was asked for
        self.account_id = 0
        self.account: str | None = None  # whose maildrop is open
        self._known: Known | None = None  # who has proven it, before the maildrop is opened
        self.expunging = False
        self.refused = 0  # logins
        self.tried: str | None = None  # the name of the last one of these

    def close(self) -> None:
        """Let the maildrop go; a second call does nothing."""
        if self._walk is not None:
            self._walk.close()
        if self._lock is not None:
            self._lock.release()
            self._last_lock, self._lock = self._lock, None

    def lose_lock(self) -> bool:
        """Every lock that was there is lost; whether a maildrop was open under one."""
        self._losses += 1  # a login under way may have the lock, and the maildrop not yet
        held = self.holds_lock
        self.close()
        return held

    async def closed(self) -> None:
        """Let the maildrop go, and wait until the next session can have it."""
        self.close()
        if self._last_lock is not None:
            await self._last_lock.released()

    def count(self, numbers: Mapping[str, int]) -> None:
        """Add to what this process has done."""
        for name, number in numbers.items():
            if number:
                self._store.counts[name] += number

    def note(self, session_id: str, **told: Any) -> None:
        """Have it remembered what this session did."""
        about = (account_mark(self.account_id), self.account or "", self._peer)
        self._store.journal.note(session_id, Kind.SESSION, about, **told)

    def note_read(self, uids: Runs) -> None:
        """Have it remembered that these messages have been downloaded."""
        self._store.reads.note(self.account_id, uids)

    @property
    def closes_slowly(self) -> bool:
        """Whether the lock is another machine's to free, so that a last word has to wait for it."""
        return self._lock is not None and self._lock.backend is not None

    @property
    def holds_lock(self) -> bool:
        """Whether a maildrop is open, and exclusively ours."""
        return self._lock is not None

    @property
    def _guest(self) -> Guest:
        return Guest(self._peer, self.refused)

    def at_once(self, ask: Ask) -> object:
        """The answer where nobody has to wait for it, else None."""
        if isinstance(ask, OpenMessage):
            return self._walk and self._walk.at_once(ask.uid, peek=ask.peek)
        return self._polled(ask) if isinstance(ask, LogIn) else None

    def read_ahead(self, uid: int) -> Content | None:
        """A message that RETR wants, where the walk has read it already."""
        return None if self._walk is None else self._walk.at_once(uid)

    def _polled(self, ask: LogIn) -> Snapshot | None:
        """The answer to most polls."""
        if self._login_delay_seconds:
            return None
        known = self._logins.recall(ask.name, ask.secret, self._guest, acting_as=ask.acting_as)
        if known is None or not known.address:
            return None
        lock = self._store.lock_maildrop_at_once(known.account_id, holder=self._peer)
        if lock is None:
            return None
        snapshot = None
        try:
            with suppress(NoSuchMailbox):
                snapshot = self._store.open_maildrop_at_once(known.account_id)
        except BaseException:
            lock.release()
            raise
        if snapshot and snapshot.password_hash == known.password_hash and snapshot.address == known.address:
            return self._entered(known.account_id, known.name, lock, snapshot)
        lock.release()
        return None

    async def to(self, ask: Ask) -> object:
        """The answer; raises the error that came instead."""
        if isinstance(ask, LoadMechanisms):
            return offered(ask.channel, keys=await self._logins.scram_works())
        if isinstance(ask, LoadExpiry):
            return await self._expiry()
        if isinstance(ask, Authenticate):
            return await self._authenticated(ask)
        if self._lock is None:
            raise StoreUnavailable(_LOST)
        match ask:
            case OpenMessage(uid, peek, behind, surrogates):
                if self._walk is None:
                    self._walk = self._store.walk(self.account_id, self._last_uid, surrogates=surrogates)
                return await self._walk.open(uid, peek=peek, behind=behind)
            case LoadLayout():
                return await self._store.layout(self.account_id, self._last_uid)
            case LoadListing(first_uid, last_uid, surrogates):
                return await self._store.listing(
                    self.account_id, last_uid, first_uid=first_uid, surrogates=surrogates
                )
            case LoadUniqueIds(first_uid, last_uid):
                return await self._store.unique_ids(self.account_id, last_uid, first_uid=first_uid)
            case Expunge(uids):
                self.expunging = True
                try:
                    await self._store.expunge(self.account_id, uids, lock=self._lock)
                finally:
                    self.expunging = False
                return None

    async def _expiry(self) -> Expiry | None:
        if self._lock is None:
            return await self._expiries.of_all()
        return await self._expiries.of_account(self.account_id)

    async def _authenticated(self, ask: Authenticate) -> object:
        guest = self._guest
        try:
            match ask:
                case LogIn():
                    return await self._log_in(ask, guest)
                case FindKeys(name, acting_as):
                    return await self._logins.find_keys(name, guest, acting_as=acting_as)
                case Judge(found, proven):
                    self._known = await self._logins.judge(found, guest, proven=proven)
                    return None
                case Enter():
                    return await self._enter()
        except LoginRefused:
            self.refused += 1
            self.tried = (ask.found.whose.key if isinstance(ask, Judge | Enter) else ask.name)[:_TRIED]
            raise

    async def _log_in(self, ask: LogIn, guest: Guest) -> Snapshot:
        name, secret, acting_as = ask.name, ask.secret, ask.acting_as
        known = self._logins.recall(name, secret, guest, acting_as=acting_as)
        if known is not None and known.address:
            # A poll: no hash, and one look into the store, which says whether the login is still good.
            with suppress(NoSuchMailbox):  # the account was removed since: refused like any other name
                snapshot = await self._open(known.account_id, known.name)
                if snapshot.password_hash == known.password_hash and snapshot.address == known.address:
                    return snapshot
            self._leave()
        self._known = await self._logins.log_in(name, secret, guest, acting_as=acting_as)
        return await self._enter()

    async def _enter(self) -> Snapshot:
        """Open the maildrop of who has proven the password, if it is still the password.

        It was read before the login had to wait for its turn, which may take many seconds.
        """
        known, self._known = self._known, None
        assert known is not None
        snapshot = await self._open(known.account_id, known.name)
        if snapshot.password_hash != known.password_hash:
            self._leave()
            raise LoginRefused("the password has just been changed")
        return snapshot

    def _leave(self) -> None:
        """The maildrop was opened for somebody who has no right to it any more."""
        self.close()
        self.account, self.account_id = None, 0

    async def _open(self, account_id: int, name: str) -> Snapshot:
        lock = await self._store.lock_maildrop(
            account_id, holder=self._peer, login_delay_seconds=self._login_delay_seconds
        )
        losses = self._losses
        try:
            # Only now: what another session removed until a moment ago must not be counted.
            snapshot = await self._store.open_maildrop(account_id)
            if self._losses != losses:
                raise StoreUnavailable(_LOST)
        except BaseException:
            lock.release()
            raise
        return self._entered(account_id, name, lock, snapshot)

    def _entered(self, account_id: int, name: str, lock: MaildropLock, snapshot: Snapshot) -> Snapshot:
        self._lock = lock
        self._last_uid = snapshot.last_uid
        self.account_id = account_id
        self.account = name
        return snapshot
