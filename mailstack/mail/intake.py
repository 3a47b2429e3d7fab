"""A mail object on its way in: canonical lines below our trace field, in a spool, within its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from mailstack.errors import BareNewline, HeaderTooBig, MailLoop, MessageTooBig, StoreBusy
from mailstack.mail.envelope import Envelope
from mailstack.mail.header import HeaderFilter
from mailstack.mail.lines import Canonicaliser
from mailstack.mail.spool import Spool
from mailstack.mail.trace import Arrival

MAX_RECEIVED_FIELDS: Final = 100
"""RFC 5321 §6.3: a message that has passed through this many servers is going in circles."""


@dataclass(slots=True)
class Flight:
    """The octets of all messages on their way in; it is what bounds the disk that spools may take."""

    max_octets: int
    octets: int = 0

    def require(self, octets: int) -> None:
        """Raise StoreBusy where so many more would be too many."""
        if self.octets + octets > self.max_octets:
            raise StoreBusy("too much mail is being received at once")


class Limits(NamedTuple):
    """What the content of one message may have."""

    octets: int
    header_octets: int


class Intake:
    """What has come of one message, and why it cannot be delivered, where it cannot."""

    __slots__ = (
        "_canonicaliser",
        "_coming",
        "_flight",
        "_header",
        "_limits",
        "_octets_in_flight",
        "arrival",
        "envelope",
        "failure",
        "mail_id",
        "octets",
        "spool",
        "surrogate",
    )

    def __init__(
        self,
        envelope: Envelope,
        mail_id: str,
        arrival: Arrival,
        *,
        received: bytes,
        spool: Spool,
        limits: Limits,
        flight: Flight,
        coming: set[object],
    ) -> None:
        self.envelope = envelope
        self.mail_id = mail_id
        self.arrival = arrival
        self.spool = spool
        self.surrogate: Spool | None = None  # what clients get that know ASCII headers only (RFC 6858)
        self.failure: Exception | None = None
        """Why this content will not be delivered, as far as that is known already."""
        self.octets = 0
        """The size of the canonical content so far, without our own trace fields."""
        self._canonicaliser = Canonicaliser()
        self._header = HeaderFilter()
        self._limits = limits
        self._flight = flight
        self._octets_in_flight = 0
        self._coming = coming
        spool.write(received)
        coming.add(self)  # the store may wait a moment for this one

    def expect(self, octets: int) -> None:
        """So many octets are announced to come next; what cannot fit is dropped from the first of them."""
        if self.octets + octets > self._limits.octets:
            self._fail(MessageTooBig(f"the message is larger than {self._limits.octets} octets"))

    def write(self, chunk: bytes) -> None:
        """Take the next octets of the content. A failure is kept for `Delivery.deliver`.

        The sender does not listen before the end of its data, so what comes after a failure, or
        above the limit, is dropped as it comes.
        """
        self._take(self._canonicaliser.feed(chunk))

    def finish(self, *, reject_bare_newlines: bool) -> None:
        """The content has ended; raises what is wrong with it."""
        if rest := self._canonicaliser.finish():
            self._take(rest)
        if rest := self._header.finish():
            self._keep(rest)
        if self.failure is not None:
            raise self.failure
        if reject_bare_newlines and self._canonicaliser.bare_newlines:
            raise BareNewline("the message has a bare CR or LF; lines end with CRLF")
        if self._header.received_fields >= MAX_RECEIVED_FIELDS:
            raise MailLoop("the message has passed through too many servers: a mail loop")

    @property
    def dotted(self) -> bool:
        """Whether some line of the content begins with a dot."""
        return self._header.dotted

    def close(self) -> None:
        """Give memory and disk back."""
        self._coming.discard(self)
        self.spool.close()
        if self.surrogate is not None:
            self.surrogate.close()
        self._flight.octets -= self._octets_in_flight
        self._octets_in_flight = 0

    def _take(self, chunk: bytes) -> None:
        self.octets += len(chunk)
        if self.failure is not None:
            return
        if self.octets > self._limits.octets:
            self.expect(0)
            return
        self._keep(self._header.feed(chunk))
        if self._header.header_octets > self._limits.header_octets:
            self._fail(HeaderTooBig(f"the header is larger than {self._limits.header_octets} octets"))

    def _keep(self, chunk: bytes) -> None:
        if self.failure is not None:
            return
        try:
            self._flight.require(len(chunk))
            self.spool.write(chunk)
        except Exception as error:  # a full disk, say: the sender is told at the end of its data
            self._fail(error)
        else:
            self._flight.octets += len(chunk)
            self._octets_in_flight += len(chunk)

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self.close()
