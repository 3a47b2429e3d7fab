"""What one transaction, or a session without one, was refused: a log line each, one event for all."""

from __future__ import annotations

from collections import Counter

from mailstack import log
from mailstack.delivery import NAMED_REFUSED, Delivery
from mailstack.mail.address import Mailbox
from mailstack.mail.trace import Arrival


class Refusals:
    """Gathers refusals, the first of which is its reason to be, until `tell`."""

    __slots__ = ("_codes", "_reverse_path", "_told")

    def __init__(self) -> None:
        self._told: list[tuple[str, str]] = []  # the first of them
        self._codes: Counter[str] = Counter()  # of all
        self._reverse_path: Mailbox | None = None

    def add(
        self,
        reply: bytes,
        *,
        session_id: str,
        arrival: Arrival,
        reverse_path: Mailbox | None,
        forward_path: Mailbox | None,
    ) -> None:
        """One more; without a forward-path it was the sender, or what it announced."""
        text = reply.decode().strip()
        log.event(
            "recipient refused" if forward_path else "sender refused",
            session=session_id,
            address=arrival.address,
            helo=arrival.helo,
            reverse_path=str(reverse_path or "<>"),
            forward_path=str(forward_path) if forward_path else None,
            reply=text,
        )
        self._reverse_path = reverse_path
        self._codes[text[:3]] += 1
        if len(self._told) < NAMED_REFUSED:
            self._told.append((str(forward_path or ""), text))

    def tell(self, delivery: Delivery, arrival: Arrival, *, session_id: str) -> None:
        """Have them remembered as one event."""
        delivery.note_refused(
            session_id,
            arrival,
            reverse_path=self._reverse_path,
            refused=self._told,
            codes=self._codes,
        )
