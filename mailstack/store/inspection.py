"""Looks at one message's content as it passes: is it all there, unchanged, and canonical?"""

from __future__ import annotations

from mailstack.mail.spool import PART_OCTETS
from mailstack.store import digests
from mailstack.store.parts import content_id


class Inspection:
    """See every part of a message once, in order, then ask for the `faults`."""

    def __init__(self, message_id: int, octets: int, known: bytes | None) -> None:
        self._id = message_id
        self._expected = octets
        self._digests = known
        self._octets = 0
        self._first = self._next = content_id(message_id)
        self._intact = True
        self._canonical = True
        self._ends_line = True
        self._carriage_return = b""  # the last part's last octet, where it was one

    def see(self, number: int, octets: bytes) -> None:
        """Take note of the next part, which is the row `number` of `content`."""
        self._intact &= number == self._next and 0 < len(octets) <= PART_OCTETS
        self._intact &= digests.fits(self._digests, number - self._first, octets)
        self._next += 1
        self._octets += len(octets)
        text = self._carriage_return + octets  # a part may end between CR and LF
        self._carriage_return = b"\r" if text.endswith(b"\r") else b""
        line_ends = text.count(b"\r\n")
        returns = text.count(b"\r") - len(self._carriage_return)
        self._canonical &= line_ends == text.count(b"\n") == returns
        self._ends_line = octets.endswith(b"\n")

    @property
    def damage(self) -> str | None:
        """What is lost or changed, once all parts have been seen."""
        if self._octets != self._expected:
            return f"message {self._id} is damaged: of its {self._expected} octets {self._octets} are there"
        if not self._intact:
            return f"message {self._id} is damaged: its content is not what was deposited"
        return None

    @property
    def fault(self) -> str | None:
        """What is wrong in any way."""
        if self.damage is None and not (self._canonical and self._ends_line):
            return f"message {self._id} has lines that do not end with CRLF"
        return self.damage
