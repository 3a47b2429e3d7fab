"""`mailstack database backup` and `mailstack backup`: copies of the store are made and looked at."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailstack.cli import backup_restore, show
from mailstack.cli.options import BackupFolder, BackupName, Json, admin
from mailstack.cli.progress import watched
from mailstack.errors import BadSetting, MailstackError
from mailstack.store import facts
from mailstack.store.clock import now

# They need alembic, which takes long to import, and most runs are of other commands.
if TYPE_CHECKING:
    from mailstack.store.backups.folder import Made

app = typer.Typer(name="backup", help="What is in backups, and how it comes back.", no_args_is_help=True)

EXAMPLE = "Example: mailstack database backup --keep 14"


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
    folder = admin(context).backups(folder)
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
def list_(context: typer.Context, folder: BackupFolder = None, json: Json = False) -> None:
    """Show the finished backups of a folder, oldest first, and which of them are damaged."""
    from mailstack.store.backups.folder import Facts, Folder

    folder = admin(context).backups(folder)
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
def verify(
    context: typer.Context, folder: BackupFolder = None, at: BackupName = None, json: Json = False
) -> None:
    """Open a backup and check every message in it; the exit code is 65 where something is wrong."""
    from mailstack.store.backups.folder import Folder
    from mailstack.store.backups.verify import Verification

    folder = admin(context).backups(folder)
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


app.command("restore", epilog=backup_restore.EXAMPLE)(backup_restore.restore)


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
