"""`mailstack maildrop`: the mail of one account, as its administrator may need it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from email.parser import HeaderParser
from email.policy import compat32
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from mailstack.cli import ask, export, limits, maildrop_remove, maildrop_undo, show
from mailstack.cli.importing import command as importing
from mailstack.cli.options import Address, Json, admin
from mailstack.cli.progress import followed
from mailstack.errors import MessageGone
from mailstack.store import accounts, browse, undo
from mailstack.store.accounts import Account
from mailstack.store.browse import Entry
from mailstack.store.engine import Database

app = typer.Typer(name="maildrop", help="The mail of one account.", no_args_is_help=True)


class Format(StrEnum):
    """How an export is written."""

    eml = "eml"
    mbox = "mbox"
    maildir = "maildir"


@app.command("list", epilog="Example: mailstack maildrop list jo@example.org --json")
def list_(context: typer.Context, address: Address, json: Json = False) -> None:
    """Show the messages of an account, oldest first."""
    with _maildrop(context, address) as (database, account):
        found = list(browse.walk(database, account.id))
    if json:
        show.as_json([each._asdict() for each in found])
        return
    show.table(
        ("unique-id", "octets", "delivered", "from"),
        (
            (each.unique_id, str(each.octets), show.moment(each.delivered_at), f"<{each.reverse_path}>")
            for each in found
        ),
        empty=f"{account.mailbox} has no messages",
        numbers=("octets",),
    )
    if account.quota_octets is not None or account.quota_messages is not None:
        show.note(f"{show.octets(account.octets)} in all; the quota is {limits.fullness(account)}")


@app.command("show", epilog="Example: mailstack maildrop show jo@example.org 1753790400.17")
def show_(
    context: typer.Context,
    address: Address,
    unique_id: Annotated[
        str | None, typer.Argument(metavar="[UNIQUE-ID]", help="Print this message, as a client gets it.")
    ] = None,
    json: Json = False,
) -> None:
    """Show how much mail an account has, or one message as it is; with --json its header, not its body."""
    with _maildrop(context, address) as (database, account):
        if unique_id is not None:
            with database.reading() as connection:
                uid = browse.find_entry(connection, account.id, unique_id)
                found = browse.entries(connection, account.id, after=uid - 1, most=1)
            octets = browse.octets_of(database, account.id, uid)
            if json:
                show.as_json(_fields(found[0], octets))
            else:
                sys.stdout.buffer.writelines(octets)
            return
        with database.reading() as connection:
            span = browse.span(connection, account.id)
            undone, _ = undo.counted(connection, account.id)
    if json:
        counters = {
            name: getattr(account, name) for name in ("messages", "octets", "quota_octets", "quota_messages")
        }
        counters["removed_messages"] = undone
        show.as_json({"address": str(account.mailbox)} | counters | span._asdict())
        return
    show.facts(
        {
            "maildrop": str(account.mailbox),
            "messages": str(account.messages),
            "size": show.octets(account.octets),
            "quota": limits.fullness(account),
            "to bring back": show.counted(undone, "removed message"),
            "oldest": show.moment(span.oldest) or "none",
            "newest": show.moment(span.newest) or "none",
        }
    )


@app.command(
    "export",
    epilog="Example: mailstack maildrop export jo@example.org /var/lib/mailstack/jo.mbox --format mbox",
)
def export_(
    context: typer.Context,
    address: Address,
    target: Annotated[
        Path,
        typer.Argument(
            metavar="DIRECTORY|FILE", help="What is to be made; a folder may be there, if it is empty."
        ),
    ],
    format_: Annotated[
        Format, typer.Option("--format", help="A file a message, one file, or a folder for mail programs.")
    ] = Format.eml,
    json: Json = False,
) -> None:
    """Copy all messages of an account into files; the maildrop stays as it is."""
    damaged: list[str] = []
    with _maildrop(context, address) as (database, account):
        write = export.WRITERS[format_.value]
        messages = _messages(database, account, damaged)
        with export.whole(target, folder=format_ is not Format.mbox) as passing:
            written = len(followed("exporting", write(passing, messages), account.messages))
    if json:
        show.as_json({"messages": written, "target": target, "format": format_.value, "damaged": damaged})
    else:
        print(f"{show.counted(written, 'message')} of {account.mailbox} are in {target}")
    if damaged:
        raise MessageGone("\n".join(damaged))


# In --help, what is used every day stands first.
app.command("import", epilog=importing.EXAMPLE)(importing.import_)
app.command("remove", epilog=maildrop_remove.EXAMPLE)(maildrop_remove.remove)
app.command("removed", epilog=maildrop_undo.LIST_EXAMPLE)(maildrop_undo.removed)
app.command("restore", epilog=maildrop_undo.RESTORE_EXAMPLE)(maildrop_undo.restore)


def _fields(found: Entry, octets: Iterable[bytes]) -> dict[str, Any]:
    """As `list` tells of it, with the names and values of its header, in order and as they came."""
    beginning = b""
    for each in octets:
        beginning += each
        if b"\r\n\r\n" in beginning:
            break
    header = beginning.partition(b"\r\n\r\n")[0].decode(errors="replace")
    fields = HeaderParser(policy=compat32).parsestr(header).raw_items()
    return found._asdict() | {"header": list(fields)}


def _messages(database: Database, account: Account, damaged: list[str]) -> Iterator[export.Message]:
    """What can be saved: a damaged message as far as it goes, none that its owner deletes meanwhile."""
    for each in browse.walk(database, account.id):
        octets = _saved(database, account, each, damaged)
        first = next(octets, None)  # of a large message without trace fields of ours it is empty
        if first is not None:
            yield export.Message(each, chain([first], octets))


def _saved(database: Database, account: Account, each: Entry, damaged: list[str]) -> Iterator[bytes]:
    try:
        yield from browse.octets_of(database, account.id, each.uid)
    except MessageGone as error:
        with database.reading() as connection:
            found = browse.entries(connection, account.id, after=each.uid - 1, most=1)
        if found[:1] == [each]:
            damaged.append(f"{each.unique_id}: {error}")


@contextmanager
def _maildrop(context: typer.Context, address: str) -> Iterator[tuple[Database, Account]]:
    mailbox = ask.mailbox(address, admin(context).settings)
    with admin(context).database() as database:
        with database.reading() as connection:
            account = accounts.find_account(connection, mailbox)
        yield database, account
