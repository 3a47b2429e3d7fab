"""The maildrop locks of one host, which the kernel keeps: a locked range of one file an account."""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

from mailstack.errors import StoreUnavailable
from mailstack.store.locks import Holding, MaildropLock

_RECORD: Final = struct.Struct("=dd112s")
"""One account's place in the lock file: since when it is held, its last login, and by whom."""

_FLOCK: Final = struct.Struct("@hhqqi4x")  # struct flock of fcntl(2), on 64-bit Linux

_NOBODY: Final = Holding(0.0, 0.0, "")


class FileLocks:
    """Exclusive among the threads and processes of one host.

    The locks belong to the open file (F_OFD_SETLK): the kernel drops them with the process.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(f"cannot open the lock file {path}: {error.strerror}") from error
        self._held: set[int] = set()

    async def hold(
        self, account_id: int, *, holder: str, login_delay_seconds: float | None = None
    ) -> MaildropLock:
        """See MaildropLocks; never waits."""
        return self.hold_at_once(account_id, holder=holder, login_delay_seconds=login_delay_seconds)

    def hold_at_once(
        self, account_id: int, *, holder: str, login_delay_seconds: float | None = None
    ) -> MaildropLock:
        """See MaildropLocks."""
        place = account_id * _RECORD.size
        # The kernel sees one owner in all of this process's sessions, so they keep apart by the set.
        if account_id in self._held or not self._set(fcntl.F_WRLCK, place):
            raise self._kept(place).in_use()
        before = _NOBODY
        try:
            if login_delay_seconds != 0.0:  # else nobody asks for the last login
                before = self._kept(place)
                before.check_delay(login_delay_seconds or 0.0)
        except BaseException:
            self._set(fcntl.F_UNLCK, place)
            raise
        self._held.add(account_id)
        since, logged_in, name = before.after(holder, login=login_delay_seconds is not None)
        with suppress(OSError):  # on a full disk the lock holds, only its story is lost
            os.pwrite(self._file, _RECORD.pack(since, logged_in, name.encode()[:112]), place)
        return MaildropLock(lambda: self._let_go(account_id))

    async def settled(self) -> None:
        """See MaildropLocks; the kernel is quick."""

    def close(self) -> None:
        """Let every lock go."""
        os.close(self._file)
        self._held.clear()

    def _let_go(self, account_id: int) -> None:
        if account_id in self._held:
            self._held.discard(account_id)
            self._set(fcntl.F_UNLCK, account_id * _RECORD.size)

    def _set(self, kind: int, place: int) -> bool:
        request = _FLOCK.pack(kind, os.SEEK_SET, place, _RECORD.size, 0)
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, request)
        except BlockingIOError:
            return False
        except OSError as error:
            raise StoreUnavailable(f"the maildrop cannot be locked: {error.strerror}") from error
        return True

    def _kept(self, place: int) -> Holding:
        record = os.pread(self._file, _RECORD.size, place)
        if len(record) < _RECORD.size:
            return _NOBODY
        since, logged_in, holder = _RECORD.unpack(record)
        return Holding(since, logged_in, holder.rstrip(b"\0").decode(errors="replace"))
