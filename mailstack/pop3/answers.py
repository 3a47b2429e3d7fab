"""What a session asks for, from the store and the directory; and the maildrop's lock."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from mailstack.directory import Directory
from mailstack.errors import NoSuchMailbox, StoreUnavailable
from mailstack.pop3.asks import Ask, Expunge, LoadListing, LoadUniqueIds, LogIn, OpenMessage
from mailstack.store.locks import MaildropLock
from mailstack.store.messages import Snapshot
from mailstack.store.store import Store


class Answers:
    """One connection's way to the mail: it holds the lock from login until `close`."""

    __slots__ = ("_directory", "_last_uid", "_lock", "_peer", "_store", "account", "account_id", "expunging")

    def __init__(self, store: Store, directory: Directory, *, peer: str) -> None:
        self._store: Final = store
        self._directory: Final = directory
        self._peer: Final = peer
        self._lock: MaildropLock | None = None
        self._last_uid = 0
        self.account_id = 0
        self.account: str | None = None  # whose maildrop is open
        self.expunging = False

    def close(self) -> None:
        """Let the maildrop go; a second call does nothing."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

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
            case OpenMessage(uid, _, peek):
                return await self._store.open_message(self.account_id, uid, peek=peek)
            case LoadListing():
                return await self._store.listing(self.account_id, self._last_uid)
            case LoadUniqueIds():
                return await self._store.unique_ids(self.account_id, self._last_uid)
            case Expunge(uids):
                self.expunging = True
                try:
                    await self._store.expunge(self.account_id, uids)
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
        lock = await self._store.lock_maildrop(account_id, holder=self._peer)
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
