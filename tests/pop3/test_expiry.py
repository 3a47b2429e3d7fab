"""EXPIRE tells what housekeeping does: of all accounts before login, of one's own after it."""

from __future__ import annotations

from mailstack.mail.address import parse_mailbox
from mailstack.pop3.expiry import Expiries
from mailstack.store import accounts, limits
from mailstack.store.limits import Expiry, Limits

DAY = 86_400


async def test_accounts_that_differ_are_told_apart_only_after_login(start):  # RFC 2449 §6.7
    async with start(retention=Limits(keep_seconds=30 * DAY)) as rig:
        with rig.store.database.writing() as connection:
            other = accounts.add_account(
                connection, parse_mailbox("kim@example.org"), password_hash="x", scram_keys=None
            )
            limits.set_for_account(connection, other.id, keep_seconds=5 * DAY)
        client = await rig.connect()
        assert b"\r\nEXPIRE 5 USER\r\n" in await client.body(b"CAPA")
        await client.log_in()
        assert b"\r\nEXPIRE 30\r\n" in await client.body(b"CAPA")


async def test_a_store_that_is_down_leaves_capa_as_it_was(start):
    async with start(retention=Limits(keep_seconds=30 * DAY)) as rig:
        expiries = Expiries(rig.store, Limits(keep_seconds=30 * DAY))
        assert await expiries.of_all() == Expiry(30, differs=False)
        with rig.store.database.writing() as connection:
            connection.exec_driver_sql("ALTER TABLE domain RENAME TO elsewhere")
        assert await expiries.of_account(1) is None
        expiries._fresh_until = 0.0
        assert await expiries.of_all() == Expiry(30, differs=False)
