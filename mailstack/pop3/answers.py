"""What a session asks for, from the store and the directory; and the maildrop's lock."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from mailstack.errors import NoSuchMailbox, StoreUnavailable
from mailstack.pop3.asks import Ask, Expunge, LoadListing, LoadUniqueIds, LogIn, OpenMessage
from mailstack.pop3.surroundings import Surroundings
from mailstack.store.locks import MaildropLock
from mailstack.store.messages import Snapshot


class Answers:
    """One connection's way to the mail: it holds the lock from login until `close`."""

    __slots__ = (
        "_directory",
        "_last_lock",
        "_last_uid",
        "_lock",
        "_login_delay_seconds",
        "_peer",
        "_store",
        "account",
        "account_id",
        "expunging",
    )

    def __init__(self, surroundings: Surroundings, *, peer: str) -> None:
        self._store: Final = surroundings.store
        self._directory: Final = surroundings.directory
        self._login_delay_seconds: Final = surroundings.login_delay_seconds
        self._peer: Final = peer
        self._lock: MaildropLock | None = None
        self._last_lock: MaildropLock | None = None  # the one that `close` has let go
        self._last_uid = 0
        self.account_id = 0
        self.account: str | None = None  # whose maildrop is open
        self.expunging = False

    def close(self) -> None:
        """Let the maildrop go; a second call does nothing."""
        if self._lock is not None:
            self._lock.release()
            self._last_lock, self._lock = self._lock, None

    async def closed(self) -> None:
        """Let the maildrop go, and wait until the next session can have it."""
        self.close()
        if self._last_lock is not None:
            await self._last_lock.released()

    @property
    def closes_slowly(self) -> bool:
        """Whether the lock is another machine's to free, so that a last word has to wait for it."""
        return self._lock is not None and self._lock.backend is not None

    @property
    def holds_lock(self) -> bool:
        """Whether a maildrop is open, and exclusively ours."""
        return self._lock is not None

    async def to(self, ask: Ask) -> object:
        """The answer; raises the error that came instead."""
        if isinstance(ask, LogIn):
            return await self._log_in(ask)
        if self._lock is None:
            # The lock died with its database connection; another session may work here by now.
            raise StoreUnavailable("the lock of the maildrop was lost")
        match ask:
            case OpenMessage(uid, surrogates=surrogates):
                return await self._store.open_message(self.account_id, uid, surrogates=surrogates)
            case LoadListing(surrogates):
                return await self._store.listing(self.account_id, self._last_uid, surrogates=surrogates)
            case LoadUniqueIds():
                return await self._store.unique_ids(self.account_id, self._last_uid)
            case Expunge(uids):
                self.expunging = True
                try:
                    await self._store.expunge(self.account_id, uids, lock=self._lock)
                finally:
                    self.expunging = False
                return None

    async def _log_in(self, ask: LogIn) -> Snapshot:
        known = self._directory.recall(ask.name, ask.secret)
        if known is not None:
            # A poll: no hash, and one look into the store, which says whether the login is still good.
            with suppress(NoSuchMailbox):  # the account was removed since: refused like any other name
                snapshot = await self._open(known.account_id, known.name)
                if snapshot.password_hash == known.password_hash:
                    return snapshot
            self.close()
        account = await self._directory.log_in(ask.name, ask.secret, peer=self._peer)
        return await self._open(account.id, account.name)

    async def _open(self, account_id: int, name: str) -> Snapshot:
        lock = await self._store.lock_maildrop(
            account_id, holder=self._peer, login_delay_seconds=self._login_delay_seconds
        )
        try:
            # Only now: what another session removed until a moment ago must not be counted.
            snapshot = await self._store.open_maildrop(account_id)
        except BaseException:
            lock.release()
            raise
        self._lock = lock
        self._last_uid = snapshot.last_uid
        self.account_id = account_id
        self.account = name
        return snapshot
