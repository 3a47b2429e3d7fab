"""`mailstack trace`: what happened to this mail?"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from mailstack import values
from mailstack.cli import show, trace_words
from mailstack.cli.exits import Usage
from mailstack.cli.options import Json, admin
from mailstack.errors import BadAddress, NotFound, Permanent
from mailstack.mail.address import Mailbox, parse_mailbox
from mailstack.store import accounts, clock, story
from mailstack.store.engine import Database
from mailstack.store.story import Event, Story, Where

EXAMPLE = "Example: mailstack trace jo@example.org --since 2d"


def trace(
    context: typer.Context,
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="ADDRESS|ID",
            show_default=False,
            help="An account, a sender or an IP address; or the id of a message or session, as in Received:,"
            " in the reply 250 and in the log, a Message-ID or a UIDL.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            show_default=False,
            help="Only what happened since then: 2h, 3d, 2026-11-25 or 2026-11-25T09:30.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Tell what happened to mail, in the order of time: from connection to download and deletion."""
    if what is None and since is None:
        raise Usage("say whose mail (an address), which mail (an id), or --since when")
    begin = 0 if since is None else _moment(since)
    settings = admin(context).settings
    with admin(context).database() as database:
        found = _found(database, what, begin, settings.default_domain)
    if json:
        show.as_json(
            {
                "events": [_event(each, found) for each in found.events],
                "now": [_where(each, found) for each in found.now],
            }
        )
        return
    if not found.events and not found.now:
        keep = values.written_duration(admin(context).settings.trace.keep_seconds)
        show.note(f"nothing is known; events are kept for {keep} ([trace] keep)")
    for line in trace_words.lines(found):
        print(line)


def _found(database: Database, what: str | None, begin: int, default_domain: str | None) -> Story:
    """What is known of it; a bare name is one in the default domain, as elsewhere, unless it is an id."""
    named = _in_domain(what, default_domain)
    with database.reading() as connection:
        if named is not None:
            with suppress(Permanent):  # then it may be an id; or an alias, or an account that was removed
                accounts.find_account(connection, named)
                return story.find(connection, str(named), begin)
        try:
            return story.find(connection, what, begin)
        except NotFound:
            if named is None:
                raise
            return story.find(connection, str(named), begin)


def _in_domain(what: str | None, domain: str | None) -> Mailbox | None:
    if what is None or domain is None or "@" in what:
        return None
    try:
        return parse_mailbox(f"{what}@{domain}")
    except BadAddress:
        return None


def _moment(text: str) -> int:
    try:
        at = datetime.now(UTC) - timedelta(seconds=values.duration(text))
    except ValueError:
        try:
            at = datetime.fromisoformat(text).astimezone()
        except ValueError as error:
            raise Usage(
                f"--since {text!r} is no time; write it like 2h, 3d, 2026-11-25 or 2026-11-25T09:30"
            ) from error
    return clock.microseconds(at)


def _event(each: Event, found: Story) -> dict[str, Any]:
    told: dict[str, Any] = {"at": clock.moment(each.at), "event": str(each.kind), "id": each.name}
    told |= each.told
    for name in ("connected_at", "began_at", "undo_until"):
        if name in told:
            told[name] = clock.moment(told[name])
    if "account_id" in told:
        told["account"] = found.names.get(told["account_id"], told.get("account"))
    if each.entries:
        told["entries"] = [
            {"account": found.names.get(account_id), "account_id": account_id, "uid": uid}
            for account_id, uid in each.entries
        ]
    return told


def _where(each: Where, found: Story) -> dict[str, Any]:
    first_read = None if each.first_read_at is None else clock.moment(each.first_read_at)
    return each._asdict() | {"account": found.names.get(each.account_id), "first_read_at": first_read}
