"""`mailstack database backup` and `mailstack backup`: copies of the store, and mail back out of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailstack.cli import ask, show
from mailstack.cli.admin import become_owner
from mailstack.cli.control import refuse_running
from mailstack.cli.exits import Usage, advised
from mailstack.cli.locked import with_lock
from mailstack.cli.options import Json, Yes, admin
from mailstack.cli.progress import watched
from mailstack.errors import BadSetting, MailstackError, NotFound
from mailstack.mail.address import Mailbox
from mailstack.settings import Settings
from mailstack.store import accounts, facts
from mailstack.store.clock import now
from mailstack.store.engine import Database
from mailstack.store.locks import HOUSEKEEPING

# They need alembic, which takes long to import, and most runs are of other commands.
if TYPE_CHECKING:
    from mailstack.store.backups import maildrop
    from mailstack.store.backups.folder import Folder, Made

app = typer.Typer(name="backup", help="What is in backups, and how it comes back.", no_args_is_help=True)

EXAMPLE = "Example: mailstack database backup --keep 14"

Where = Annotated[
    Path | None,
    typer.Argument(
        metavar="[FOLDER]", help="The folder of backups; else the one in the settings.", show_default=False
    ),
]
Which = Annotated[
    str | None, typer.Option("--at", metavar="NAME", help="Of backup list; else the newest one.")
]


def backup(
    context: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER]",
            help="Empty, or with earlier backups; else the settings' folder and number.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Keep only the N newest backups; else all."),
    ] = None,
    json: Json = False,
) -> None:
    """Copy the whole store into a folder, while the service runs; the next time only what is new.

    The exit code is 65 if messages were damaged in the store already.
    """
    from mailstack.store.backups import prune
    from mailstack.store.backups.folder import Folder
    from mailstack.store.backups.make import Backup

    if folder is None and keep is None:
        keep = admin(context).settings.backup.keep
    folder = _placed(context, folder)
    opened = Folder(folder)
    pruned = prune.Pruned(0, 0, ())
    with admin(context).database() as database:
        run = Backup(database, opened)
        watched("backing up", run.run())
        if keep is not None:
            pruned = prune.prune(opened, keep)
    assert run.made is not None
    if json:
        show.as_json(
            _fields(run.made)
            | {"copied_octets": run.copied, "damaged": run.damaged}
            | {"removed_backups": pruned.backups, "removed_octets": pruned.octets}
            | {"damaged_backups": [each.name for each in pruned.damaged]}
        )
    else:
        told = run.made.facts
        print(
            f"{folder / run.made.name} has {show.counted(told.messages, 'message')} of"
            f" {show.counted(told.accounts, 'account')}; {show.octets(run.copied)} were new"
        )
        if pruned.backups:
            print(f"{show.counted(pruned.backups, 'older backup')} removed, {show.octets(pruned.octets)}")
        for old in pruned.damaged:
            show.note(f"{old.problem}; it is none of the {keep}, and was not removed")
        for each in run.damaged:
            show.note(f"{each}; what is left of it is in the backup")
        if run.unnoted is not None:
            show.note(f"note: the store could not remember this backup: {run.unnoted}")
    if run.damaged:
        raise typer.Exit(os.EX_DATAERR)


@app.command("list", epilog="Example: mailstack backup list --json")
def list_(context: typer.Context, folder: Where = None, json: Json = False) -> None:
    """Show the finished backups of a folder, oldest first, and which of them are damaged."""
    from mailstack.store.backups.folder import Facts, Folder

    folder = _placed(context, folder)
    opened = Folder(folder)
    opened.open()
    found, damaged = opened.looked_through()
    if json:
        told = [_fields(each) | {"problem": None} for each in found]
        told += [dict.fromkeys(Facts._fields) | {"name": name, "problem": why} for name, _, why in damaged]
        show.as_json(sorted(told, key=lambda each: each["name"]))
        return
    for each in damaged:
        show.note(each.problem)
    show.table(
        ("backup", "made", "accounts", "messages", "size"),
        (
            (
                each.name,
                show.moment(each.facts.made_at),
                str(each.facts.accounts),
                str(each.facts.messages),
                show.octets(each.facts.octets),
            )
            for each in found
        ),
        empty=f"there is no finished backup in {folder}",
        numbers=("accounts", "messages", "size"),
    )


@app.command("verify", epilog="Example: mailstack backup verify")
def verify(context: typer.Context, folder: Where = None, at: Which = None, json: Json = False) -> None:
    """Open a backup and check every message in it; the exit code is 65 where something is wrong."""
    from mailstack.store.backups.folder import Folder
    from mailstack.store.backups.verify import Verification

    folder = _placed(context, folder)
    opened = Folder(folder)
    identity = opened.open()
    made = opened.find(at)
    run = Verification(opened, made)
    watched("verifying", run.run())
    if not run.findings:
        _remember(context, identity)
    if json:
        show.as_json(_fields(made) | {"findings": run.findings})
    else:
        for each in run.findings:
            print(each)
        verdict = show.counted(len(run.findings), "finding") if run.findings else "all is well"
        print(f"{folder / made.name}: {show.counted(run.messages, 'message')} read, {verdict}")
    if run.findings:
        raise typer.Exit(os.EX_DATAERR)


@app.command("restore", epilog="Example: mailstack backup restore --account jo@example.org")
def restore(
    context: typer.Context,
    folder: Where = None,
    *,
    at: Which = None,
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
    folder = _placed(context, folder)
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


def _placed(context: typer.Context, folder: Path | None) -> Path:
    """The folder that was named; else that of the settings, which the owner of state_dir alone may open."""
    if folder is not None:
        return folder
    found = admin(context).settings
    become_owner(found.state_dir)
    return found.backup.folder


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
    from mailstack.store.backups import maildrop
    from mailstack.store.backups.copy import upgraded

    with upgraded(folder, made, settings.state_dir) as copy:
        with database.reading() as connection:
            mailbox = maildrop.renamed(connection, mailbox)
            plan = maildrop.plan(connection, copy, source, unique_ids, target=mailbox)
        what = f"{show.counted(len(plan.missing), 'message')} ({show.octets(plan.octets)}) of {source}"
        whose = what if mailbox == source else f"{what} into {mailbox}"
        ask.confirm(
            f"Restore {whose} as of {show.moment(made.facts.made_at)}? {plan.present} are still there.",
            yes=yes,
        )
        target, made_again = _target(database, mailbox, plan)
        run = maildrop.Return(database, copy, plan, target)
        with_lock(
            database,
            settings,
            target.id,
            lambda: watched("restoring", run.run()),
            holder="mailstack backup restore",
            octets=plan.octets,
        )
    if mailbox != source:
        show.note(f"{source} of the backup is {mailbox} now")
    if made_again:
        show.note(
            f"{mailbox} is an account again, with the password and limits it had;"
            " aliases that led to it have to be added again"
        )
    return {"restored": run.restored, "present": plan.present, "findings": run.findings}


def _target(database: Database, mailbox: Mailbox, plan: maildrop.Plan) -> tuple[accounts.Account, bool]:
    """The account to restore into, and whether it had been removed and is made again, as it was."""
    from mailstack.store.backups import maildrop

    with database.writing() as connection:
        try:
            return accounts.find_account(connection, mailbox), False
        except NotFound:
            return maildrop.make_again(connection, mailbox, plan), True


def _remember(context: typer.Context, identity: int) -> None:
    """Note the success in the store that the backup is of, where that is ours and at hand."""
    try:
        with admin(context).database() as database, database.writing() as connection:
            if facts.get(connection, facts.IDENTITY) == identity:
                facts.put(connection, facts.LAST_VERIFIED, now())
    except BadSetting:
        pass  # a backup can be verified on any machine, so a store is not needed
    except (MailstackError, OSError) as error:
        show.note(f"note: no store could remember this: {error}")


def _fields(made: Made) -> dict[str, Any]:
    return {"name": made.name} | made.facts._asdict()
