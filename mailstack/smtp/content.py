"""The content of one message on its way in: from the 354 of DATA, or the first BDAT, to its end."""

from __future__ import annotations

import sys

from mailstack import log
from mailstack.delivery import Delivery
from mailstack.mail.intake import Intake
from mailstack.settings import Smtp
from mailstack.smtp.data import ChunkReader, DotReader


class Content:
    """What a session is reading from its first octet to its last, and where the octets go."""

    __slots__ = ("_framing", "_intake", "_last_chunk", "_seen_at", "octets")

    def __init__(self, intake: Intake | None) -> None:
        """Without an intake there is no transaction: the octets are read and dropped."""
        self.octets = 0
        """How many octets have come."""
        self._seen_at: float | None = None  # when it was first looked at
        self._intake = intake
        self._framing: DotReader | ChunkReader | None = None
        self._last_chunk = True

    @property
    def wanted(self) -> bool:
        """Whether the next octets are content; else they are a command, and between chunks of it."""
        return self._framing is not None

    @property
    def failure(self) -> Exception | None:
        """Why the message will be refused in the end, where that is known already."""
        return None if self._intake is None else self._intake.failure

    @property
    def ended(self) -> bool:
        """Whether what has ended is the message, and not only one of its chunks."""
        return self._last_chunk

    def begin_data(self) -> None:
        """The content comes with dots, up to CRLF.CRLF (RFC 5321 §4.5.2)."""
        self._framing = DotReader()

    def begin_chunk(self, octets: int, *, last: bool) -> None:
        """The next so many octets are content as they are (RFC 3030 §2)."""
        if self._intake is not None:
            self._intake.expect(octets)
        self._last_chunk = last
        self._framing = ChunkReader(octets) if octets else None

    def take(self, given: bytes, position: int) -> int | None:
        """Take the content that begins there; where it ends, once DATA or this BDAT has come whole."""
        framing = self._framing
        assert framing is not None
        # Of many small chunks in one segment each takes its own octets, not all that are behind it.
        most = framing.missing if isinstance(framing, ChunkReader) else sys.maxsize
        piece = given[position : position + most]
        octets = framing.feed(piece)
        self.octets += len(octets)
        if self._intake is not None:
            self._intake.write(octets)
        if not framing.done:
            return None
        self._framing = None
        return position + len(piece) - len(framing.rest)

    def hand_over(self) -> Intake | None:
        """The whole message, which is the caller's to close, or None where it was dropped as it came."""
        intake, self._intake = self._intake, None
        return intake

    def is_too_slow(self, now: float, limits: Smtp) -> bool:
        """Whether it has had its time, or trickles to keep the connection.

        A sender may be silent for `idle_seconds`, and so may a slow line of an honest one; what is
        asked of it is asked of the rest of the time.
        """
        if self._seen_at is None:
            self._seen_at = now
        seconds = now - self._seen_at
        owed = (seconds - limits.idle_seconds) * limits.min_octets_per_second
        return seconds > limits.max_data_seconds or owed > self.octets

    def note_lost(self, delivery: Delivery, *, session_id: str) -> None:
        """The connection is gone before the content had ended: tell the log, and whoever asks later."""
        outcome = "the connection was lost within the content"
        mail_id = None if self._intake is None else self._intake.mail_id
        log.event("mail", id=mail_id, session=session_id, outcome=outcome)
        if self._intake is not None:
            delivery.note_failed(self._intake, outcome)

    def close(self) -> None:
        """Give back what an unfinished message holds."""
        if self._intake is not None:
            self._intake.close()
            self._intake = None
