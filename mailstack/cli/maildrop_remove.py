"""`mailstack maildrop remove`: messages go as if housekeeping had removed them, and can be brought back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

import typer

from mailstack import values
from mailstack.cli import ask, show
from mailstack.cli.exits import Usage
from mailstack.cli.locked import with_lock
from mailstack.cli.options import Address, Json, Yes, admin
from mailstack.store import accounts, discard
from mailstack.store.engine import Database
from mailstack.store.removal import Expunged
from mailstack.store.retention import SLICE

EXAMPLE: Final = "Example: mailstack maildrop remove jo@example.org --imported"


def remove(
    context: typer.Context,
    address: Address,
    unique_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[UNIQUE-ID]...", help="As maildrop list shows them.")
    ] = None,
    *,
    imported: Annotated[
        bool, typer.Option("--imported", help="All that maildrop import brought; it may be imported anew.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Take messages out of a maildrop; for a while, maildrop restore brings them back."""
    if bool(unique_ids) == imported:
        raise Usage("name messages, as maildrop list shows them, or say --imported")
    settings = admin(context).settings
    mailbox = ask.mailbox(address, settings)
    undo_seconds = settings.retention.undo_seconds
    with admin(context).database() as database:
        with database.reading() as connection:
            account = accounts.find_account(connection, mailbox)
            found = (
                discard.brought(connection, account.id)
                if imported
                else discard.named(connection, account.id, unique_ids or ())
            )
        what = f"{show.counted(len(found), 'message')} ({show.octets(sum(found.values()))})"
        back = f"for {values.written_duration(undo_seconds)} maildrop restore brings them back"
        lasting = back if undo_seconds else "nothing brings them back, as [retention] undo says"
        if found:
            ask.confirm(f"Remove {what} of {account.mailbox}? ({lasting})", yes=yes)

        def taken() -> Expunged:
            gone = list(_taken(database, account.id, list(found), undo_seconds))
            if imported:
                with database.writing() as connection:
                    discard.forget_imports(connection, account.id)
            return Expunged(sum(each.messages for each in gone), sum(each.octets for each in gone))

        done = with_lock(database, settings, account.id, taken, holder="mailstack maildrop remove")
    if json:
        show.as_json({"address": str(account.mailbox), **done._asdict(), "undo_seconds": undo_seconds})
        return
    print(f"{show.counted(done.messages, 'message')} of {account.mailbox} removed")
    if done.messages:
        show.note(lasting)


def _taken(database: Database, account_id: int, uids: list[int], undo_seconds: int) -> Iterator[Expunged]:
    """Some at a time: nobody waits long for the writer."""
    for start in range(0, len(uids), SLICE):
        some = uids[start : start + SLICE]
        with database.writing() as connection:
            gone = discard.discard(connection, account_id, some, undo_seconds=undo_seconds)
        yield gone
