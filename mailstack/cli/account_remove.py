"""Removing an account while the service runs: under the maildrop's lock, as everyone who deletes mail."""

from __future__ import annotations

import asyncio

from mailstack.cli.locked import locked, opened
from mailstack.mail.address import Mailbox
from mailstack.settings import Settings
from mailstack.store import accounts
from mailstack.store.accounts import Account
from mailstack.store.engine import Database


def remove(database: Database, settings: Settings, account: Account) -> list[Mailbox]:
    """Remove the account, then its mail; return the aliases that named it.

    Raises MaildropInUse during a session. Its mail is noted in the same transaction: if the command is
    ended meanwhile, the service removes it.
    """

    def in_one_transaction() -> list[Mailbox]:
        with database.writing() as connection:
            return accounts.remove_account(connection, account.mailbox)

    async def removed() -> list[Mailbox]:
        async with opened(database, settings) as store:
            async with locked(store, account.id, "mailstack account remove"):
                named = await asyncio.to_thread(in_one_transaction)
            await store.leftovers.finish()
            return named

    return asyncio.run(removed())
