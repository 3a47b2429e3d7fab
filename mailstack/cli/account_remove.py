"""Removing an account while the service runs: under the maildrop's lock, as everyone who deletes mail."""

from __future__ import annotations

from mailstack.cli.locked import with_lock
from mailstack.mail.address import Mailbox
from mailstack.settings import Settings
from mailstack.store import accounts, leftovers
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

    named = with_lock(database, settings, account.id, in_one_transaction, holder="mailstack account remove")
    leftovers.finish(database)
    return named
