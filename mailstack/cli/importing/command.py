"""`mailstack maildrop import`: the move from another server that no client notices."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Final

import typer

from mailstack import values
from mailstack.cli import ask, limits, show
from mailstack.cli.exits import advised
from mailstack.cli.importing import opening, telling
from mailstack.cli.importing.entering import Entering
from mailstack.cli.importing.measuring import measured
from mailstack.cli.importing.opening import Kind
from mailstack.cli.importing.source import Uidl, shown
from mailstack.cli.importing.telling import Messages, Result
from mailstack.cli.options import Address, Json, admin
from mailstack.cli.progress import followed, watched
from mailstack.errors import BadData, MaildropFull, MailstackError
from mailstack.mail.dovecot import DEFAULT_FORMAT
from mailstack.store import accounts, browse, imports
from mailstack.store.accounts import Account
from mailstack.store.clock import SECOND, now
from mailstack.store.engine import Database
from mailstack.store.imports import Fate
from mailstack.store.limits import Limits

EXAMPLE: Final = "Example: mailstack maildrop import jo@example.org /srv/old/jo/Maildir --dry-run"


def import_(
    context: typer.Context,
    address: Address,
    path: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A Maildir, an mbox, an .eml or a folder of them.")
    ],
    *,
    kind: Annotated[Kind, typer.Option("--format", help="How the mail lies there.")] = Kind.auto,
    uidl: Annotated[
        Uidl, typer.Option(help="Where unique-ids are taken from; new gives new ones.")
    ] = Uidl.auto,
    uidl_format: Annotated[
        str, typer.Option(metavar="FORMAT", help="pop3_uidl_format of the old Dovecot, if it had its own.")
    ] = DEFAULT_FORMAT,
    over_quota: Annotated[
        bool, typer.Option("--over-quota", help="Import what the quota has no room for.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Import what came before under other unique-ids a second time.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    json: Json = False,
) -> None:
    """Bring in the mail of another server with its unique-ids, so that no client downloads it again.

    Can be run again at any time: it brings what is missing, and nothing that was deleted meanwhile.
    The source stays as it is; the server may run.
    """
    settings = admin(context).settings
    mailbox = ask.mailbox(address, settings)
    with admin(context).database() as database:
        with database.reading() as connection:
            account = accounts.find_account(connection, mailbox)
        with advised(path):
            source = opening.opened(path, kind, uidl, uidl_format)
        try:
            with advised(path):
                looked = followed("reading", measured(source, uidl))
            with database.reading() as connection:
                have = imports.known(connection, account.id)
            wanted = [each.wanted for each in looked]
            made = imports.decisions(wanted, have, lambda uid: _digest(database, account, uid))
            messages = list(zip(looked, made, strict=True))
            if not again:
                other = imports.under_other_ids(wanted, made, have.imported)
                _require_same_ids(account, len(wanted), other)
            told = f"{source.kind}, {shown(str(path))}"
            entering = Entering(
                database, settings, source, account_id=account.id, stand=have.stand, told=told
            )
            _require_room(account, messages, allowed=over_quota)
            if not dry_run:
                _enter(entering, messages)
            source.notes += _ageing(limits.of_account(context, database, account.id), account, messages)
        finally:
            source.close()
    telling.tell(Result(account, path, source, messages, entering.entered, dry_run), json=json)


def _digest(database: Database, account: Account, uid: int) -> bytes:
    """Of what RETR sends; raises MessageGone."""
    digest = hashlib.sha256()
    for octets in browse.octets_of(database, account.id, uid):
        digest.update(octets)
    return digest.digest()


def _require_same_ids(account: Account, found: int, number: int) -> None:
    """Raise BadData where messages came before, and their unique-ids were others."""
    if number:
        raise BadData(
            f"{number} of {show.counted(found, 'message')} came here before under other unique-ids, which"
            " mail programs may know and which are never changed: nothing was imported. If those were wrong,"
            f" take what was imported out and import it anew (mailstack maildrop remove {account.mailbox}"
            " --imported): what had its right one keeps it. --again imports it a second time"
        )


def _require_room(account: Account, messages: Messages, *, allowed: bool) -> None:
    """Raise MaildropFull before the first message where not all have room."""
    new = [each.octets for each, decision in messages if decision.fate is Fate.NEW]
    octets, number = account.octets + sum(new), account.messages + len(new)
    fits = (account.quota_octets is None or octets <= account.quota_octets) and (
        account.quota_messages is None or number <= account.quota_messages
    )
    if new and not fits and not allowed:
        raise MaildropFull(
            f"{account.mailbox} would have {show.octets(octets)} in {show.counted(number, 'message')}, and"
            f" its quota is {limits.quota(account)}: nothing was imported; raise it (mailstack account quota"
            f" {account.mailbox} SIZE) or say --over-quota"
        )


def _enter(entering: Entering, messages: Messages) -> None:
    try:
        watched("importing", entering.run(messages))
    except MailstackError:
        show.note(
            f"{show.counted(entering.entered, 'message')} imported so far;"
            " the same command again imports the rest"
        )
        raise


def _ageing(found: Limits, account: Account, messages: Messages) -> list[str]:
    """What housekeeping will make of this mail, which is as old here as it was there."""
    new = [each for each, decision in messages if decision.fate is Fate.NEW]
    if found.keep_seconds is not None:
        before = now() - found.keep_seconds * SECOND
        if old := sum(each.at < before for each in new):
            age = values.written_duration(found.keep_seconds)
            return [
                f"{old} of them came more than {age} ago, and housekeeping removes such mail;"
                f" mailstack account keep {account.mailbox} changes that"
            ]
    told = limits.beyond(found, account, messages=account.messages + len(new))
    return [told] if told else []
