"""`mailstack backup restore`: all mail out of a backup, or what one account lacks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from mailstack.cli import ask, show
from mailstack.cli.admin import become_owner
from mailstack.cli.control import refuse_running
from mailstack.cli.exits import Usage, advised
from mailstack.cli.locked import with_lock
from mailstack.cli.options import BackupFolder, BackupName, Json, Yes, admin
from mailstack.cli.progress import watched
from mailstack.errors import NotFound
from mailstack.mail.address import Mailbox
from mailstack.settings import Settings
from mailstack.store import accounts
from mailstack.store.engine import Database
from mailstack.store.locks import HOUSEKEEPING

# They need alembic, which takes long to import, and most runs are of other commands.
if TYPE_CHECKING:
    from mailstack.store.backups import missing
    from mailstack.store.backups.folder import Folder, Made

EXAMPLE: Final = "Example: mailstack backup restore --account jo@example.org"


def restore(
    context: typer.Context,
    folder: BackupFolder = None,
    *,
    at: BackupName = None,
    account: Annotated[
        str | None, typer.Option(metavar="NAME@DOMAIN", help="Only this account; what it still has stays.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="NAME@DOMAIN", help="What the account was called in the backup."),
    ] = None,
    message: Annotated[
        list[str] | None,
        typer.Option(metavar="UNIQUE-ID", help="Only this message of the account; can be given again."),
    ] = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Bring mail back: everything into an empty database, or what one account lacks. UIDLs stay."""
    from mailstack.store.backups.folder import Folder

    if message and account is None:
        raise Usage("--message needs --account: a unique-id is one account's own")
    if source and account is None:
        raise Usage("--from needs --account: the address that the account has now")
    settings = admin(context).settings
    become_owner(settings.state_dir)
    folder = admin(context).backups(folder)
    opened = Folder(folder)
    with advised(folder):
        opened.open()
        made = opened.find(at)
    with (
        advised(folder),
        admin(context).database(any_schema=account is None, make=account is None) as database,
    ):
        if account is None:
            told = _restore_all(database, opened, made, settings, yes=yes)
        else:
            mailbox = ask.mailbox(account, settings)
            told = _restore_maildrop(
                database,
                opened,
                made,
                settings,
                mailbox=mailbox,
                source=ask.mailbox(source, settings) if source else mailbox,
                unique_ids=message or [],
                yes=yes,
            )
    if json:
        show.as_json(told)
    else:
        there = f"; {show.counted(told['present'], 'message')} had stayed" if told["present"] else ""
        print(f"{show.counted(told['restored'], 'message')} restored from {folder / made.name}{there}")
        for each in told["findings"]:
            print(each)
    if told["findings"]:
        raise typer.Exit(os.EX_DATAERR)


def _restore_all(
    database: Database, folder: Folder, made: Made, settings: Settings, *, yes: bool
) -> dict[str, Any]:
    from mailstack.store import migrate
    from mailstack.store.backups.restore import Restoration

    refuse_running(settings)
    told = made.facts
    what = f"{show.counted(told.messages, 'message')} of {show.counted(told.accounts, 'account')}"
    ask.confirm(f"Restore {what} as of {show.moment(told.made_at)}?", yes=yes)
    migrate.upgrade(database, show.note)
    run = Restoration(database, folder, made, settings.state_dir)
    # Housekeeping would take content without messages for litter.
    with_lock(
        database,
        settings,
        HOUSEKEEPING,
        lambda: watched("restoring", run.run()),
        holder="mailstack backup restore",
        octets=told.octets,
    )
    return {"restored": told.messages, "present": 0, "findings": run.findings}


def _restore_maildrop(
    database: Database,
    folder: Folder,
    made: Made,
    settings: Settings,
    *,
    mailbox: Mailbox,
    source: Mailbox,
    unique_ids: list[str],
    yes: bool,
) -> dict[str, Any]:
    from mailstack.store.backups import maildrop, missing
    from mailstack.store.backups.copy import upgraded

    with upgraded(folder, made, settings.state_dir) as copy:
        with database.reading() as connection:
            mailbox = missing.renamed(connection, mailbox)
            plan = missing.plan(connection, copy, source, unique_ids, target=mailbox)
        what = f"{show.counted(len(plan.missing), 'message')} ({show.octets(plan.octets)}) of {source}"
        whose = what if mailbox == source else f"{what} into {mailbox}"
        ask.confirm(
            f"Restore {whose} as of {show.moment(made.facts.made_at)}? {plan.present} are still there.",
            yes=yes,
        )
        target, made_again = _target(database, mailbox, plan)

        def brought_back() -> tuple[missing.Plan, maildrop.Return]:
            # While a person thought about it the owner has fetched mail, or somebody else brought it back.
            with database.reading() as connection:
                accounts.find_account(connection, target.mailbox)  # or NotFound: it was removed, or renamed
                found = missing.plan(connection, copy, source, unique_ids, target=target.mailbox)
            run = maildrop.Return(database, copy, found.of_those_in(plan), target)
            watched("restoring", run.run())
            return found, run

        found, run = with_lock(
            database, settings, target.id, brought_back, holder="mailstack backup restore", octets=plan.octets
        )
    if mailbox != source:
        show.note(f"{source} of the backup is {mailbox} now")
    if made_again:
        show.note(
            f"{mailbox} is an account again, with the password and limits it had;"
            " aliases that led to it have to be added again"
        )
    if gone := len(found.missing) - len(found.of_those_in(plan).missing):
        what = show.counted(gone, "message")
        show.note(f"{what} went after the question; say the same again to bring back that, too")
    return {"restored": run.restored, "present": found.present + run.stayed, "findings": run.findings}


def _target(database: Database, mailbox: Mailbox, plan: missing.Plan) -> tuple[accounts.Account, bool]:
    """The account to restore into, and whether it had been removed and is made again, as it was."""
    from mailstack.store.backups import missing

    with database.writing() as connection:
        try:
            return accounts.find_account(connection, mailbox), False
        except NotFound:
            return missing.make_again(connection, mailbox, plan), True
