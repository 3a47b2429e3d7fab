"""Removing an account while the service runs: under the maildrop's lock, as everyone who deletes mail."""

from __future__ import annotations

import asyncio

from mailstack.mail.address import Mailbox
from mailstack.settings import Settings
from mailstack.store import accounts
from mailstack.store.accounts import Account
from mailstack.store.engine import Database
from mailstack.store.store import Store


def remove(database: Database, settings: Settings, account: Account) -> list[Mailbox]:
    """Remove the account; return the aliases that named it. Raises MaildropInUse during a session."""
    return asyncio.run(_remove(database, settings, account))


async def _remove(database: Database, settings: Settings, account: Account) -> list[Mailbox]:
    store = Store(database, state_dir=settings.state_dir, reserve_octets=settings.store.reserve_octets)
    try:
        lock = await store.lock_maildrop(account.id, holder="mailstack account remove")
        try:
            return await asyncio.to_thread(_in_one_transaction, database, account)
        finally:
            lock.release()
    finally:
        await store.close()


def _in_one_transaction(database: Database, account: Account) -> list[Mailbox]:
    with database.writing() as connection:
        return accounts.remove_account(connection, account.mailbox)
