"""`mailstack database`: its schema, and whether it adds up."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from mailstack.cli import backup, show
from mailstack.cli.locked import with_lock
from mailstack.cli.options import Json, admin
from mailstack.cli.progress import watched
from mailstack.errors import StoreDamaged
from mailstack.settings import Settings
from mailstack.store import damage, integrity, legible, schema
from mailstack.store.damage import Harmed
from mailstack.store.engine import Database
from mailstack.store.finding import Finding
from mailstack.store.locks import HOUSEKEEPING
from mailstack.store.progress import Progress

if TYPE_CHECKING:
    from mailstack.store.rehearsal import Rehearsal

_SHOWN: Final = 20

app = typer.Typer(name="database", help="The store's schema, and whether it adds up.", no_args_is_help=True)
app.command("backup", epilog=backup.EXAMPLE)(backup.backup)


@app.command("upgrade", epilog="Example: mailstack database upgrade")
def upgrade(
    context: typer.Context,
    *,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Upgrade a copy, check it, and throw it away.")
    ] = False,
    no_snapshot: Annotated[
        bool, typer.Option("--no-snapshot", help="There is a backup already: copy nothing first.")
    ] = False,
) -> None:
    """Bring the schema to this program's revision; a database that is not there yet is made.

    What has mail in it is copied first, whole, into `snapshots` in state_dir.
    """
    from mailstack.store import migrate, rehearsal, snapshots  # alembic takes long to import

    folder = admin(context).settings.state_dir / "snapshots"
    with admin(context).database(any_schema=True, make=not rehearse) as database:
        if rehearse:
            _rehearsed(rehearsal.rehearse(database, folder, show.note))
            return

        def copied(found: str) -> None:
            if not no_snapshot:
                show.note(f"a copy of the database as it was is {snapshots.take(database, folder, found)}")

        if not migrate.upgrade(database, show.note, first=copied):
            print(f"the schema is at {schema.HEAD} already")
        else:
            print(f"the schema is at {schema.HEAD} now")


def _rehearsed(told: Rehearsal) -> None:
    for each in told.findings:
        print(each)
    if told.findings:
        print(
            "the upgraded copy does not add up; the database is as it was, and what it had already,"
            " mailstack database check of the version before tells"
        )
        raise typer.Exit(os.EX_DATAERR)
    print(
        f"a copy went from {told.before or 'nothing'} to {told.after} in {told.seconds:.1f} s"
        " and adds up; the database is as it was"
    )


@app.command("revision", epilog="Example: mailstack database revision --json")
def revision(context: typer.Context, json: Json = False) -> None:
    """Show the schema's revision and the one this program needs; the exit code is 78 where they differ."""
    with admin(context).database(any_schema=True) as database, database.reading() as connection:
        found = schema.revision(connection)
    if json:
        show.as_json({"revision": found, "needed": schema.HEAD})
    else:
        show.facts({"revision": found or "none: the database is empty", "needed": schema.HEAD})
    if found != schema.HEAD:
        raise typer.Exit(os.EX_CONFIG)


@app.command("check", epilog="Example: mailstack database check --repair")
def check(
    context: typer.Context,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False,
    json: Json = False,
) -> None:
    """Recount every account, look for what belongs to nothing, read every message: beside the service.

    With --repair it keeps out housekeeping and a restore of everything; it is refused while they are at work.
    The exit code is 0 if all is well, or is now; 65 if something is wrong.
    """
    with admin(context).database() as database:
        found = _found(database, admin(context).settings, repair=repair)
        left = [finding for finding in found if not (repair and finding.mendable)]
        harmed = _harmed(database) if left else []
    if json:
        findings = [each._asdict() | {"mended": repair and each.mendable} for each in found]
        show.as_json({"findings": findings, "damaged": [each._asdict() for each in harmed]})
    else:
        for each in found:
            print(f"{'mended: ' if repair and each.mendable else ''}{each.text}")
        print(_verdict(len(found), left))
        for advice in _restores(harmed):
            show.note(advice)
    if left:
        raise typer.Exit(os.EX_DATAERR)


def _found(database: Database, settings: Settings, *, repair: bool) -> list[Finding]:
    """What a check finds, and mends if `repair`; raises AlreadyRunning."""
    from mailstack.store import migrate

    found = [Finding(said, mendable=False) for said in migrate.differences(database)]

    def steps() -> Iterator[Progress]:
        for step in integrity.check(database, repair=repair):
            found.extend(step.findings)
            yield step.progress

    def looked_through() -> None:
        watched("checking", steps())

    if repair:
        # It takes content without messages for litter, which is all that a restore has brought at first.
        with_lock(database, settings, HOUSEKEEPING, looked_through, holder="mailstack database check")
    else:
        looked_through()
    return found


def _harmed(database: Database) -> list[Harmed]:
    """The messages of maildrops that are known to be damaged, as far as that can be read."""
    try:
        with database.reading() as connection:
            return damage.harmed(connection)
    except StoreDamaged:
        return []


def _restores(harmed: Sequence[Harmed]) -> Iterator[str]:
    """The commands that bring them back."""
    for each in harmed[:_SHOWN]:
        options = shlex.join(["--account", each.address, "--message", each.unique_id])
        yield f"from a backup: mailstack backup restore FOLDER {options}"
    if len(harmed) > _SHOWN:
        yield f"and {len(harmed) - _SHOWN} more; --json tells all"


def _verdict(found: int, left: Sequence[Finding]) -> str:
    if not found:
        return "the store adds up"
    if not left:
        return f"{show.counted(found, 'finding')}, all mended"
    advice = "; --repair mends what can be mended" if any(each.mendable for each in left) else ""
    if any(legible.UNREADABLE in each.text for each in left):
        advice += "; what cannot be read comes back by mailstack backup restore"
    return f"{show.counted(len(left), 'finding')} left{advice}"
