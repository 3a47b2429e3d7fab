"""`mailstack deliver`: a message on standard input into maildrops, for fetching programs and scripts.

A delivery agent is judged by its exit code, which decides whether the program before it keeps the
message, returns it or forgets it: so what is not surely for good is EX_TEMPFAIL here.
"""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Annotated, Final

import typer

from mailstack import errors, log
from mailstack.cli import exits, show
from mailstack.cli.ask import parsed
from mailstack.cli.options import admin
from mailstack.mail.address import Mailbox, parse_sender
from mailstack.mail.envelope import Envelope
from mailstack.mail.spool import Spool
from mailstack.mail.trace import Arrival
from mailstack.settings import Settings

if TYPE_CHECKING:
    from mailstack.store.engine import Database
    from mailstack.store.store import Store

EXAMPLE = "Example: mailstack deliver --sender eve@example.net jo@example.org < message"

FOR_GOOD: Final[dict[type[BaseException], int]] = {
    errors.NoSuchMailbox: os.EX_NOUSER,
    errors.NotOurDomain: os.EX_NOUSER,
    errors.MailboxDisabled: os.EX_NOUSER,
    errors.BadAddress: os.EX_DATAERR,
    errors.MessageTooBig: os.EX_DATAERR,
    errors.HeaderTooBig: os.EX_DATAERR,
    errors.MailLoop: os.EX_DATAERR,
}
"""What trying again does not mend. A wrong setting is none of it: it will be put right, the mail not."""

_NULL_SENDERS: Final = frozenset({"", "<>", "mailer-daemon", "unknown"})
"""The null reverse-path as Postfix and getmail call it on a command line."""

_CHUNK_OCTETS: Final = 64 * 1024
_MBOX_LINE: Final = b"From "


def deliver(
    context: typer.Context,
    recipients: Annotated[list[str], typer.Argument(metavar="RECIPIENT...", show_default=False)],
    sender: Annotated[
        str, typer.Option("--sender", "-f", metavar="ADDRESS", help="The reverse-path; else the null one.")
    ] = "",
) -> int:
    """Put the message on standard input into the recipients' maildrops.

    An address may be whatever RCPT takes. The message is in every maildrop or, where the exit code
    is not 0, in none. 75: try again later. 67: nobody there. 65: not this message.
    """
    began_as = os.geteuid()
    try:
        settings = admin(context).settings
        with admin(context).database() as database:
            deposited(settings, database, recipients, sender, _standard_input())
    except Exception as error:
        if admin(context).debug:
            traceback.print_exc()
        exits.complain(error, began_as)
        return code(error)
    return 0


def _standard_input() -> IO[bytes]:
    if sys.stdin is None:  # closed by whoever started us
        raise errors.BadData("there is no standard input, where the message has to come from")
    if sys.stdin.isatty():
        show.note("write the message, or paste it; Ctrl-D on a line of its own ends it")
    return sys.stdin.buffer


def code(error: Exception) -> int:
    """The exit code for the program that has the message."""
    return next((code for kind, code in FOR_GOOD.items() if isinstance(error, kind)), os.EX_TEMPFAIL)


def deposited(
    settings: Settings, database: Database, recipients: Sequence[str], sender: str, stream: IO[bytes]
) -> None:
    """Put a whole message into the recipients' maildrops, as if it had come by SMTP."""
    settings.spool_dir.mkdir(mode=0o700, exist_ok=True)
    with Spool(settings.spool_dir) as given:
        _read(stream, given, settings.smtp.max_message_octets)  # without a loop, which would keep a Ctrl-C
        asyncio.run(_delivered(settings, database, recipients, sender, given))


async def _delivered(
    settings: Settings, database: Database, recipients: Sequence[str], sender: str, given: Spool
) -> None:
    from mailstack.delivery import Delivery
    from mailstack.store.store import Store

    spool_dir = settings.spool_dir
    store = Store.of(database, settings)
    try:
        delivery = Delivery(
            store,
            hostname=settings.hostname,
            spool_dir=spool_dir,
            max_message_octets=settings.smtp.max_message_octets,
            max_header_octets=settings.smtp.max_header_octets,
        )
        envelope = await _envelope(settings, store, recipients, sender, octets=given.octets)
        arrival = Arrival(settings.hostname, "", "local", None)
        intake = delivery.begin(envelope, arrival, f"{log.new_session_id()}-1")
        try:
            for part in given.parts():
                intake.write(part)
            await delivery.deliver(intake)
        finally:
            intake.close()
    finally:
        await store.close()


async def _envelope(
    settings: Settings, store: Store, recipients: Sequence[str], sender: str, *, octets: int
) -> Envelope:
    from mailstack.directory import Directory

    directory = Directory(
        store,
        hostname=settings.hostname,
        default_domain=settings.default_domain,
        postmaster=settings.postmaster,
    )
    envelope = Envelope(_reverse_path(sender), utf8=True)
    for each in recipients:
        forward_path = directory.full(_forward_path(each, settings.default_domain))
        envelope.add(forward_path, await directory.route(forward_path, octets=octets))
    return envelope


def _reverse_path(sender: str) -> Mailbox | None:
    return None if sender.lower() in _NULL_SENDERS else parsed(_bare(sender), parse_sender)


def _forward_path(recipient: str, default_domain: str | None) -> Mailbox:
    name = _bare(recipient)
    if name.lower() == "postmaster":
        return Mailbox(name, "")
    return parsed(name if "@" in name or not default_domain else f"{name}@{default_domain}")


def _bare(address: str) -> str:
    return address[1:-1] if address.startswith("<") and address.endswith(">") else address


def _read(stream: IO[bytes], given: Spool, most: int) -> None:
    """All of the stream, but for the line that a mailbox file has before a message."""
    chunk = stream.read(_CHUNK_OCTETS)
    if chunk.startswith(_MBOX_LINE) and b"\n" in chunk:
        chunk = chunk.partition(b"\n")[2]
    while chunk:
        given.write(chunk)
        if given.octets > most:
            raise errors.MessageTooBig(f"the message is larger than {most} octets")
        chunk = stream.read(_CHUNK_OCTETS)
