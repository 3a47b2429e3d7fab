"""Whether there is room for a message is known from a look at the disk, which is good for a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailstack.errors import StoreFull
from mailstack.mail.address import parse_mailbox
from mailstack.mail.spool import Spool
from mailstack.store import accounts, disk, domains
from mailstack.store.engine import Database
from mailstack.store.messages import Deposit, Recipient
from tests.support.stores import opened


@pytest.mark.parametrize("good_for_seconds", [1.0, 0.0])
async def test_room_that_was_found_counts_however_long_the_look_for_it_took(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good_for_seconds: float
) -> None:
    monkeypatch.setattr(disk, "_LOOK_SECONDS", good_for_seconds)  # 0: longer than that
    async with opened(Database(sqlite_url), tmp_path) as store:
        await store.disk.require(1000)
        with pytest.raises(StoreFull):
            await store.disk.require(1 << 60)


async def test_a_message_that_is_stored_in_two_forms_takes_room_for_both(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = disk._needed(200_000) + disk._needed(200_000)
    monkeypatch.setattr(disk, "_LOOK_SECONDS", 3600.0)
    monkeypatch.setattr(disk.Disk, "_free_octets", lambda _disk: room)
    database = Database(sqlite_url)
    with database.writing() as connection:
        domains.add_domain(connection, "example.org")
        jo = accounts.add_account(connection, parse_mailbox("jo@example.org"), password_hash="x")
    content = b"x" * 99_998 + b"\r\n"
    async with opened(database, tmp_path) as store:
        with Spool.holding(content) as spool, Spool.holding(content) as surrogate:
            to = (Recipient(jo.id, b"", b""),)
            await store.deposit(Deposit("m", "", spool, False, to, 1, surrogate))

        assert store.disk.surely_fits(199_000)
        assert not store.disk.surely_fits(200_000)
