"""`mailstack maildrop removed` and `restore`: what went lately comes back."""

from __future__ import annotations

from typing import Annotated

import typer

from mailstack.cli import ask, limits, show
from mailstack.cli.exits import Usage
from mailstack.cli.locked import with_lock
from mailstack.cli.options import Address, Json, admin
from mailstack.store import accounts, undo
from mailstack.store.undo import Removed

LIST_EXAMPLE = "Example: mailstack maildrop removed jo@example.org"
RESTORE_EXAMPLE = "Example: mailstack maildrop restore jo@example.org 1753790400.17"


def removed(context: typer.Context, address: Address, json: Json = False) -> None:
    """Show the messages that were removed and can still be brought back; no quota counts them."""
    mailbox = ask.mailbox(address, admin(context).settings)
    with admin(context).database() as database, database.reading() as connection:
        account = accounts.find_account(connection, mailbox)
        found = undo.listed(connection, account.id)
    if json:
        show.as_json([each._asdict() for each in found])
        return
    show.table(
        ("unique-id", "octets", "removed", "by", "from"),
        (
            (
                each.unique_id,
                str(each.octets),
                show.moment(each.removed_at),
                each.removed_by,
                f"<{each.reverse_path}>",
            )
            for each in found
        ),
        empty=f"{account.mailbox} has no messages to bring back",
        numbers=("octets",),
    )


def restore(
    context: typer.Context,
    address: Address,
    unique_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[UNIQUE-ID]...", help="As maildrop removed shows them.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All that can be brought back.")] = False,
    json: Json = False,
) -> None:
    """Bring removed messages back where they were, under their old unique-ids; their age begins anew."""
    if bool(unique_ids) == all_:
        raise Usage("name messages, as maildrop removed shows them, or say --all")
    settings = admin(context).settings
    mailbox = ask.mailbox(address, settings)
    with admin(context).database() as database:
        with database.reading() as connection:
            account = accounts.find_account(connection, mailbox)

        def bring_back() -> list[Removed]:
            with database.writing() as connection:
                return undo.bring_back(connection, account.id, None if all_ else unique_ids)

        found = with_lock(database, settings, account.id, bring_back, holder="mailstack maildrop restore")
        rules = limits.of_account(context, database, account.id)
    if json:
        show.as_json([each._asdict() for each in found])
    else:
        print(f"{show.counted(len(found), 'message')} of {account.mailbox} brought back")
    if told := limits.beyond(rules, account, messages=account.messages + len(found)):
        show.note(f"note: {told}")
