"""`mailstack housekeeping`: what the role of that name does by itself, once and now."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mailstack.cli import show
from mailstack.cli.exits import Usage
from mailstack.cli.locked import opened
from mailstack.cli.options import Json, admin
from mailstack.settings import Settings
from mailstack.store import accounts, housekeeping
from mailstack.store.engine import Database
from mailstack.store.housekeeping import Report, Rules, Sweep

app = typer.Typer(
    name="housekeeping", help="Old mail goes, space comes back; for timers.", no_args_is_help=True
)


@app.command("run", epilog="Example: mailstack housekeeping run --dry-run, or --sweep --json")
def run(
    context: typer.Context,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be removed.")] = False,
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="Look through the whole store now, which is else done once a day."),
    ] = False,
    json: Json = False,
) -> None:
    """Remove what is kept no longer, warn owners of full maildrops, give space back; beside the service."""
    if dry_run and sweep:
        raise Usage("--dry-run looks for nothing that --sweep would remove; leave one of them out")
    settings = admin(context).settings
    with admin(context).database() as database:
        with database.reading() as connection:
            names = {each.id: str(each.mailbox) for each in accounts.list_accounts(connection)}
        report = _run(database, settings, dry_run=dry_run, sweep=sweep)
    if json:
        show.as_json(_fields(report, names) | {"dry_run": dry_run})
        return
    for account_id, doomed in report.maildrops.items():
        what = f"{show.counted(doomed.messages, 'message')} ({show.octets(doomed.octets)})"
        print(f"{names.get(account_id)}: {what} {'would be removed' if dry_run else 'removed'}")
    for account_id in report.in_use:
        print(f"{names.get(account_id)}: somebody is fetching mail; passed over until the next time")
    for account_id in report.warned:
        print(f"{names.get(account_id)}: the owner was told that the mailbox is nearly full")
    if dry_run:
        print("nothing was changed" if report.maildrops else "there is nothing to remove")
        return
    orphans = f" {report.orphans} that belonged to nothing," if report.swept else ""
    print(
        f"{show.counted(report.forgotten, 'removed message')} gone for good,{orphans}"
        f" {show.counted(report.events, 'event')} too old to be traced,"
        f" {show.octets(report.freed_octets)} given back"
    )


def _run(database: Database, settings: Settings, *, dry_run: bool, sweep: bool) -> Report:
    rules, when = Rules.of(settings), Sweep.NOW if sweep else Sweep.DAILY
    with opened(database, settings) as (runner, store):
        if dry_run:
            return runner.run(housekeeping.preview(store, rules))
        return runner.run(housekeeping.run(store, rules, postmaster=settings.postmaster, sweep=when))


def _fields(report: Report, names: dict[int, str]) -> dict[str, Any]:
    return {
        "maildrops": [
            {"address": names.get(account_id), **doomed._asdict()}
            for account_id, doomed in report.maildrops.items()
        ],
        "in_use": [names.get(account_id) for account_id in report.in_use],
        "warned": [names.get(account_id) for account_id in report.warned],
        "forgotten": report.forgotten,
        "swept": report.swept,
        "orphans": report.orphans,
        "events": report.events,
        "freed_octets": report.freed_octets,
    }
