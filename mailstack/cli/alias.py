"""`mailstack alias`: addresses that mean others."""

from __future__ import annotations

from typing import Annotated

import typer

from mailstack.cli import ask, show
from mailstack.cli.options import Json, admin
from mailstack.store import aliases, routes

app = typer.Typer(name="alias", help="Addresses that mean others, and catch-alls.", no_args_is_help=True)

Source = Annotated[
    str,
    typer.Argument(metavar="ADDRESS", help="NAME@DOMAIN, or @DOMAIN for the catch-all.", show_default=False),
]


@app.command("add", epilog="Example: mailstack alias add team@example.org jo@example.org kim@example.org")
def add(
    context: typer.Context,
    address: Source,
    targets: Annotated[list[str], typer.Argument(metavar="TARGET...", help="Accounts or aliases of ours.")],
) -> None:
    """Send mail for an address to one or more others, in addition to those it has."""
    settings = admin(context).settings
    source = ask.source(address, settings)
    wanted = [ask.mailbox(target, settings) for target in targets]
    with admin(context).database() as database, database.writing() as connection:
        logged_in = routes.logs_in(connection, source)
        made = aliases.add_alias(connection, source, wanted)
        ends = logged_in and not routes.logs_in(connection, source)
    print(f"mail for {aliases.written(made.mailbox)} goes to {', '.join(map(str, made.targets))}")
    if ends:
        show.note(f"{made.mailbox} leads to several accounts now: nobody can log in with it any more")


@app.command("list", epilog="Example: mailstack alias list example.org --json")
def list_(
    context: typer.Context,
    domain: Annotated[str | None, typer.Argument(metavar="[DOMAIN]", help="Only of this domain.")] = None,
    json: Json = False,
) -> None:
    """Show aliases and where their mail goes."""
    with admin(context).database() as database, database.reading() as connection:
        found = aliases.list_aliases(connection, domain)
    if json:
        show.as_json(
            [
                {"address": aliases.written(each.mailbox), "targets": list(map(str, each.targets))}
                for each in found
            ]
        )
        return
    show.table(
        ("alias", "targets"),
        ((aliases.written(each.mailbox), ", ".join(map(str, each.targets))) for each in found),
        empty="there are no aliases",
    )


@app.command("remove", epilog="Example: mailstack alias remove team@example.org kim@example.org")
def remove(
    context: typer.Context,
    address: Source,
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="[TARGET]...", help="Only these; none named means all.")
    ] = None,
) -> None:
    """Remove an alias, or only some of its targets."""
    settings = admin(context).settings
    source = ask.source(address, settings)
    unwanted = [ask.mailbox(target, settings) for target in targets or []]
    with admin(context).database() as database, database.writing() as connection:
        left = aliases.remove_alias(connection, source, unwanted)
    if left:
        print(f"mail for {aliases.written(source)} goes to {', '.join(map(str, left))}")
    else:
        print(f"{aliases.written(source)} is no alias any more")
