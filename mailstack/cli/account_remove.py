"""Removing an account while the service runs: under the maildrop's lock, as everyone who deletes mail."""

from __future__ import annotations

from typing import NamedTuple

from mailstack.cli.locked import locked, opened
from mailstack.mail.address import Mailbox
from mailstack.settings import Settings
from mailstack.store import accounts, aliases
from mailstack.store.accounts import Account
from mailstack.store.engine import Database


class Changed(NamedTuple):
    """The aliases that named an account: those that have other targets, and those that went with it."""

    left: list[Mailbox]
    gone: list[Mailbox]


def remove(database: Database, settings: Settings, account: Account) -> Changed:
    """Remove the account, then its mail; return what became of the aliases that named it.

    Raises MaildropInUse during a session. Its mail is noted in the same transaction: if the command is
    ended meanwhile, the service removes it.
    """

    with opened(database, settings) as (runner, store):
        with locked(runner, store, account.id, "mailstack account remove"):
            changed = _without(database, account)
        runner.run(store.leftovers.finish())
        return changed


def _without(database: Database, account: Account) -> Changed:
    with database.writing() as connection:
        named = accounts.remove_account(connection, account.mailbox)
        left = [each for each in named if aliases.targets(connection, aliases.source_place(connection, each))]
    return Changed(left, [each for each in named if each not in left])
