"""The mail delivery agent: writes the trace fields and deposits once for all recipients."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from mailstack import log
from mailstack.errors import AccountsRemoved, RecipientRemoved
from mailstack.mail import trace
from mailstack.mail.address import Mailbox
from mailstack.mail.envelope import Envelope
from mailstack.mail.intake import Flight, Intake, Limits
from mailstack.mail.spool import Room, Spool
from mailstack.mail.surrogate import in_ascii, surrogate
from mailstack.mail.trace import Arrival
from mailstack.store import clock
from mailstack.store.events import Kind, Row
from mailstack.store.messages import Deposit, Recipient
from mailstack.store.store import Store

NAMED_REFUSED: Final = 100
"""Recipients that the event of a refusal names; of more it tells the number. It waits in memory."""

_HEAD_OCTETS: Final = 16 * 1024
_MESSAGE_ID: Final = re.compile(rb"\r\nMessage-ID:[ \t\r\n]*(<[!-~]{1,500}>)", re.IGNORECASE)

MAX_HEADER_OCTETS: Final = 256 * 1024
MAX_OCTETS_IN_FLIGHT: Final = 4 * 1024**3

_ROOM_OCTETS: Final = 32 * 1024 * 1024
"""What messages on their way in may have in memory beyond a part each; the rest of them is in files."""

_ALARM_SECONDS: Final = 60.0
"""Of a store that takes no mail the log warns so often; each message has its line all the same."""

_SURROGATES_AT_ONCE: Final = 2
"""How many threads may be busy with headers of internationalized messages; the others are for logins."""


class Delivery:
    """Takes mail objects in and puts them into maildrops."""

    def __init__(
        self,
        store: Store,
        *,
        hostname: str,
        spool_dir: Path,
        max_message_octets: int,
        max_header_octets: int = MAX_HEADER_OCTETS,
        max_octets_in_flight: int = MAX_OCTETS_IN_FLIGHT,
        reject_bare_newlines: bool = False,
    ) -> None:
        self.max_message_octets = max_message_octets
        self.flight = Flight(max_octets_in_flight)
        self.disk = store.disk
        self.counts = store.counts
        self.alarm = log.Seldom(_ALARM_SECONDS)
        self._limits = Limits(max_message_octets, max_header_octets)
        self._store = store
        self._hostname = hostname
        self._spool_dir = spool_dir
        self._room = Room(_ROOM_OCTETS)
        self._reject_bare_newlines = reject_bare_newlines
        self._making_surrogates = asyncio.Semaphore(_SURROGATES_AT_ONCE)

    def begin(self, envelope: Envelope, arrival: Arrival, mail_id: str) -> Intake:
        """Make ready for the content of a transaction; the caller closes what it gets."""
        received = trace.received(
            arrival,
            by=self._hostname,
            id=mail_id,
            date=trace.utc(int(time.time())),
            recipient=envelope.only_recipient,
        )
        return Intake(
            envelope,
            mail_id,
            arrival,
            received=received,
            spool=Spool(self._spool_dir, self._room),
            limits=self._limits,
            flight=self.flight,
            coming=self._store.coming,
        )

    async def deliver(self, intake: Intake, *, each_alone: bool = False) -> int:
        """Deposit the finished content in every recipient's maildrop; return the message's id.

        Returns when it is committed and synced, and not before. Raises MessageTooBig, MailLoop,
        HeaderTooBig, BareNewline, NoSuchMailbox, or what the store says. Where one of several recipients
        was removed since RCPT, RecipientRemoved; or else, where each is told about `each_alone`, its envelope
        is the one of those who are left.
        """
        intake.finish(reject_bare_newlines=self._reject_bare_newlines)
        if intake.envelope.utf8:
            async with self._making_surrogates:
                intake.surrogate = await asyncio.to_thread(surrogate, intake.spool, self._spool_dir)
        self._store.coming.discard(intake)
        while True:
            try:
                number = await self._store.deposit(self._deposit(intake))
                break
            except AccountsRemoved as error:
                intake.envelope = _left(intake.envelope, error, each_alone=each_alone)
        self.counts["messages_accepted"] += 1
        self.counts["octets_accepted"] += intake.octets
        self.counts["deliveries"] += len(intake.envelope.accounts)
        return number

    def _deposit(self, intake: Intake) -> Deposit:
        envelope = intake.envelope
        top = trace.return_path(envelope.reverse_path)
        recipients = [
            Recipient(account_id, top + trace.delivered_to(forward_path), bound=bound)
            for account_id, (forward_path, bound) in envelope.accounts.items()
        ]
        if envelope.utf8:
            recipients = _with_surrogates(recipients, always=intake.surrogate is not None)
        return Deposit(
            mail_id=intake.mail_id,
            reverse_path=str(envelope.reverse_path or ""),
            spool=intake.spool,
            dotted=intake.dotted,
            recipients=recipients,
            at=clock.now(),
            surrogate=intake.surrogate,
            event=self._event(intake),
        )

    def _event(self, intake: Intake) -> Row | None:
        journal = self._store.journal
        if not journal.kept:
            return None
        told = _told(intake) | {"message_id": _message_id(intake.spool)}
        return journal.row(intake.mail_id, Kind.ACCEPTED, _about(told), told)

    def note_failed(self, intake: Intake, outcome: str) -> None:
        """Remember that this message was not taken, and what its sender has heard."""
        self.counts.add_replies("messages_refused", [outcome if outcome[:3].isdecimal() else "lost"])
        told = _told(intake) | {"outcome": outcome}
        if (number := len(told["forward_paths"])) > NAMED_REFUSED:
            told |= {"forward_paths": told["forward_paths"][:NAMED_REFUSED], "number": number}
        self._store.journal.note(intake.mail_id, Kind.REFUSED, _about(told), **told)

    def note_refused(
        self,
        session_id: str,
        arrival: Arrival,
        *,
        reverse_path: Mailbox | None,
        refused: Sequence[tuple[str, str]],
        codes: Counter[str],
    ) -> None:
        """Remember recipients, or a sender (""), that were refused, each with the reply.

        Of many, `refused` has the first ones; `codes` counts how all of the replies began.
        """
        self.counts.add_replies("recipients_refused", codes.elements())
        sender = str(reverse_path or "")
        told = _came(arrival) | {"reverse_path": sender, "refused": refused, "number": codes.total()}
        about = (arrival.address, sender, *(forward_path for forward_path, _ in refused))
        self._store.journal.note(session_id, Kind.REFUSED, about, **told)


def _left(envelope: Envelope, error: AccountsRemoved, *, each_alone: bool) -> Envelope:
    """What is left to be delivered; raises where nobody is, or the sender has to ask again."""
    left = envelope.without(error.account_ids)
    if not left.accounts:
        raise error
    if len(left.forward_paths) < len(envelope.forward_paths) and not each_alone:
        raise RecipientRemoved("a recipient was removed while its mail was on the way") from error
    return left


def _came(arrival: Arrival) -> dict[str, Any]:
    came = {
        "session": arrival.session,
        "connected_at": arrival.connected_at,
        "address": arrival.address,
        "helo": arrival.helo,
        "protocol": arrival.protocol,
    }
    return came if arrival.tls is None else came | {"tls": arrival.tls}


def _told(intake: Intake) -> dict[str, Any]:
    envelope = intake.envelope
    return _came(intake.arrival) | {
        "reverse_path": str(envelope.reverse_path or ""),
        "forward_paths": list(map(str, envelope.forward_paths)),
        "octets": intake.octets,
    }


def _about(told: dict[str, Any]) -> tuple[str, ...]:
    """What the event of a message can be found by."""
    return (told["address"], told["reverse_path"], *told["forward_paths"], told.get("message_id") or "")


def _message_id(spool: Spool) -> str | None:
    """The msg-id of RFC 5322 §3.6.4, which other people know the message by; not where it comes late."""
    head = spool.head(_HEAD_OCTETS)
    found = _MESSAGE_ID.search(head)
    # Behind the empty line it is text, of a message that is quoted; the match begins with a line's end.
    if found is None or b"\r\n\r\n" in head[: found.start() + len(b"\r\n")]:
        return None
    return found[1].decode("ascii")


def _with_surrogates(recipients: list[Recipient], *, always: bool) -> list[Recipient]:
    """The recipients with trace fields for clients that have not said UTF8, where anything differs."""
    return [
        recipient._replace(surrogate_prefix=in_ascii(recipient.prefix))
        if always or not recipient.prefix.isascii()
        else recipient
        for recipient in recipients
    ]
