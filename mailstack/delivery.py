"""The mail delivery agent: writes the trace fields and deposits once for all recipients."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from mailstack.errors import BareNewline, MailLoop, MessageTooBig
from mailstack.mail import trace
from mailstack.mail.envelope import Envelope
from mailstack.mail.header import HeaderFilter
from mailstack.mail.lines import Canonicaliser
from mailstack.mail.spool import Spool
from mailstack.mail.surrogate import in_ascii, surrogate
from mailstack.mail.trace import Arrival
from mailstack.store import clock
from mailstack.store.messages import Deposit, Recipient
from mailstack.store.store import Store

MAX_RECEIVED_FIELDS: Final = 100
"""RFC 5321 §6.3: a message that has passed through this many servers is going in circles."""


class Intake:
    """One mail object on its way in: canonical lines, our trace field on top, spooled."""

    __slots__ = (
        "_canonicaliser",
        "_failure",
        "_header",
        "_limit",
        "_octets",
        "envelope",
        "mail_id",
        "spool",
        "surrogate",
    )

    def __init__(self, envelope: Envelope, mail_id: str, received: bytes, spool: Spool, limit: int) -> None:
        self.envelope = envelope
        self.mail_id = mail_id
        self.spool = spool
        self.surrogate: Spool | None = None  # what clients get that know ASCII headers only (RFC 6858)
        self._canonicaliser = Canonicaliser()
        self._header = HeaderFilter()
        self._limit = limit
        self._octets = 0
        self._failure: Exception | None = None
        spool.write(received)

    def write(self, chunk: bytes) -> None:
        """Take the next octets of the content. A failure is kept for `Delivery.deliver`.

        The sender does not listen before the end of its data, so what comes after a failure, or
        above the limit, is dropped as it comes.
        """
        self._take(self._canonicaliser.feed(chunk))

    def finish(self, *, reject_bare_newlines: bool) -> None:
        """The content has ended; raises what is wrong with it."""
        self._take(self._canonicaliser.finish())
        self._keep(self._header.finish())
        if self._failure is not None:
            raise self._failure
        if reject_bare_newlines and self._canonicaliser.bare_newlines:
            raise BareNewline("the message has a bare CR or LF; lines end with CRLF")
        if self._header.received_fields >= MAX_RECEIVED_FIELDS:
            raise MailLoop("the message has passed through too many servers: a mail loop")

    @property
    def dotted(self) -> bool:
        """Whether some line of the content begins with a dot."""
        return self._header.dotted

    @property
    def octets(self) -> int:
        """The size of the canonical content, without our own trace fields."""
        return self._octets

    def close(self) -> None:
        """Give memory and disk back."""
        self.spool.close()
        if self.surrogate is not None:
            self.surrogate.close()

    def _take(self, chunk: bytes) -> None:
        self._octets += len(chunk)
        if self._octets > self._limit and self._failure is None:
            self._failure = MessageTooBig(f"the message is larger than {self._limit} octets")
        if self._failure is None:
            self._keep(self._header.feed(chunk))
        elif self.spool.octets:
            self.spool.close()

    def _keep(self, chunk: bytes) -> None:
        if self._failure is None:
            try:
                self.spool.write(chunk)
            except Exception as error:  # a full disk, say: the sender is told at the end of its data
                self._failure = error


class Delivery:
    """Takes mail objects in and puts them into maildrops."""

    def __init__(
        self,
        store: Store,
        *,
        hostname: str,
        spool_dir: Path,
        max_message_octets: int,
        reject_bare_newlines: bool = False,
    ) -> None:
        self.max_message_octets = max_message_octets
        self._store = store
        self._hostname = hostname
        self._spool_dir = spool_dir
        self._reject_bare_newlines = reject_bare_newlines

    def begin(self, envelope: Envelope, arrival: Arrival, mail_id: str) -> Intake:
        """Make ready for the content of a transaction; the caller closes what it gets."""
        received = trace.received(
            arrival,
            by=self._hostname,
            id=mail_id,
            at=datetime.now(UTC),
            recipient=envelope.only_recipient,
        )
        return Intake(envelope, mail_id, received, Spool(self._spool_dir), self.max_message_octets)

    async def deliver(self, intake: Intake) -> int:
        """Deposit the finished content in every recipient's maildrop; return the message's id.

        Returns when it is committed and synced, and not before. Raises MessageTooBig, MailLoop,
        BareNewline, NoSuchMailbox, or what the store says.
        """
        intake.finish(reject_bare_newlines=self._reject_bare_newlines)
        envelope = intake.envelope
        top = trace.return_path(envelope.reverse_path)
        recipients = tuple(
            Recipient(account_id, top + trace.delivered_to(forward_path))
            for account_id, forward_path in envelope.accounts.items()
        )
        if envelope.utf8:
            intake.surrogate = await asyncio.to_thread(surrogate, intake.spool, self._spool_dir)
            recipients = _with_surrogates(recipients, always=intake.surrogate is not None)
        return await self._store.deposit(
            Deposit(
                mail_id=intake.mail_id,
                reverse_path=str(envelope.reverse_path or ""),
                spool=intake.spool,
                dotted=intake.dotted,
                recipients=recipients,
                at=clock.now(),
                surrogate=intake.surrogate,
            )
        )


def _with_surrogates(recipients: tuple[Recipient, ...], *, always: bool) -> tuple[Recipient, ...]:
    """The recipients with trace fields for clients that have not said UTF8, where anything differs."""
    return tuple(
        recipient._replace(surrogate_prefix=in_ascii(recipient.prefix))
        if always or not recipient.prefix.isascii()
        else recipient
        for recipient in recipients
    )
