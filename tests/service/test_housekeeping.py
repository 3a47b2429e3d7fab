"""The process that keeps house: when it copies the log back, and when it looks through the whole store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from mailstack import settings
from mailstack.service import housekeeping
from mailstack.settings.keeping import Housekeeping
from mailstack.store.engine import Database
from mailstack.store.housekeeping import Report
from tests.support import maildrops
from tests.support.stores import opened

JO = "jo@example.org"


class Counting(Database):
    """A database that counts how often its log was copied back."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.copied = 0
        self.was_copied = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def copy_log(self) -> bool:
        """Copy back, and count."""
        self.copied += 1
        self._loop.call_soon_threadsafe(self.was_copied.set)
        return super().copy_log()


async def test_only_a_quiet_log_is_copied_back(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_QUIET_SECONDS", 0.5)
    database = Counting(sqlite_url)
    maildrops.add_accounts(database, JO)
    async with (
        opened(database, tmp_path) as store,
        housekeeping.kept(store, settings.load(None, {"MAILSTACK_STATE_DIR": str(tmp_path)})),
    ):
        for number in range(40):
            await asyncio.to_thread(maildrops.deposit, database, b"Subject: %d\r\n\r\n" % number, JO)
            await asyncio.sleep(0.03)
        assert database.copied == 0
        await asyncio.wait_for(database.was_copied.wait(), 20)
        await asyncio.sleep(1.1)
        assert database.copied == 1


async def test_a_start_is_no_moment_for_a_look_through_the_whole_store(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: asyncio.Queue[Report] = asyncio.Queue()
    monkeypatch.setattr(housekeeping, "tell", told.put_nowait)
    found = settings.load(None, {"MAILSTACK_STATE_DIR": str(tmp_path)})
    found = replace(found, housekeeping=Housekeeping(every_seconds=2))
    async with opened(Database(sqlite_url), tmp_path) as store, housekeeping.kept(store, found):
        reports = [await asyncio.wait_for(told.get(), 20) for _ in range(2)]
    assert [each.swept for each in reports] == [False, True]
