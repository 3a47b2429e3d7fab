"""The maildrop as one session sees it: fixed numbers, deletion marks, and its lists as text.

What was there at login stays numbered 1, 2, 3 ... to the end of the session, deleted or not
(RFC 1939 §4, §5). The listing is loaded by the first command that needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from mailstack.errors import StoreUnavailable
from mailstack.pop3.commands import Refused
from mailstack.store.listing import Listing, UniqueIds
from mailstack.store.messages import Snapshot

SLICE_LINES: Final = 1000
"""Lines of LIST that are built at a time: other sessions are served in between."""


class Entry(NamedTuple):
    """One message of the maildrop."""

    number: int
    uid: int
    octets: int


class Maildrop:
    """The messages of a snapshot, and which of them are marked as deleted."""

    __slots__ = (
        "_all_messages",
        "_all_octets",
        "_deleted",
        "_deleted_octets",
        "_listing",
        "_marks",
        "surrogates",
    )

    def __init__(self, snapshot: Snapshot, *, utf8: bool = False) -> None:
        self.surrogates = snapshot.surrogates > 0 and not utf8
        """Whether some messages are to be had as their surrogates (RFC 6858), in content and in size."""
        self._all_messages = snapshot.messages
        self._all_octets = snapshot.octets + (snapshot.surrogate_octets if self.surrogates else 0)
        self._listing: Listing | None = None
        self._marks: bytearray | None = None  # an octet a message; made by the first DELE
        self._deleted = 0
        self._deleted_octets = 0

    def __str__(self) -> str:
        """What LIST, RSET and PASS tell a person."""
        plural = "" if self.messages == 1 else "s"
        return f"{self.messages} message{plural} ({self.octets} octets)"

    @property
    def messages(self) -> int:
        """How many are not deleted (STAT)."""
        return self._all_messages - self._deleted

    @property
    def octets(self) -> int:
        """What those add up to (STAT)."""
        return self._all_octets - self._deleted_octets

    @property
    def all_messages(self) -> int:
        """How many there were at login; the highest message number."""
        return self._all_messages

    @property
    def deleted(self) -> int:
        """How many are marked as deleted."""
        return self._deleted

    @property
    def deleted_octets(self) -> int:
        """What the marked ones add up to."""
        return self._deleted_octets

    @property
    def loaded(self) -> bool:
        """Whether the listing is here."""
        return self._listing is not None

    def load(self, listing: Listing) -> None:
        """Take the listing; it has to agree with the snapshot, since STAT has been told already."""
        if len(listing.uids) != self._all_messages:
            raise StoreUnavailable("the maildrop's listing does not agree with its counters")
        self._listing = listing

    def check(self, number: int) -> None:
        """Refuse a number that this maildrop does not have, or that is deleted."""
        if number > self._all_messages:
            raise Refused(f"no such message, the maildrop has {self._all_messages}")
        if self._marks and self._marks[number - 1]:
            raise Refused(f"message {number} is deleted")

    def entry(self, number: int) -> Entry:
        """The message of that number, which has to be loaded and not deleted."""
        self.check(number)
        listing = self._loaded_listing()
        at = number - 1
        return Entry(number, listing.uids[at], listing.octets[at])

    def delete(self, number: int) -> None:
        """Mark a message as deleted (RFC 1939 §5)."""
        entry = self.entry(number)
        if self._marks is None:
            self._marks = bytearray(self._all_messages)
        self._marks[number - 1] = 1
        self._deleted += 1
        self._deleted_octets += entry.octets

    def reset(self) -> None:
        """Take back all marks (RFC 1939 §5)."""
        self._marks = None
        self._deleted = self._deleted_octets = 0

    def deleted_uids(self) -> list[int]:
        """The uids of what is marked, in order."""
        if not self._marks:
            return []
        return [uid for uid, mark in zip(self._loaded_listing().uids, self._marks, strict=True) if mark]

    def sizes(self) -> Iterator[bytes]:
        """LIST: slices of `number octets` lines, then the final dot."""
        octets = self._loaded_listing().octets
        for start in range(0, self._all_messages, SLICE_LINES):
            yield self._lines(start, list(map(str, octets[start : start + SLICE_LINES])))
        yield b".\r\n"

    def unique_ids(self, unique_ids: UniqueIds) -> Iterator[bytes]:
        """UIDL: slices of `number unique-id` lines, then the final dot."""
        start = 0
        for some in unique_ids.slices():
            yield self._lines(start, some)
            start += len(some)
        yield b".\r\n"

    def _lines(self, start: int, values: list[str]) -> bytes:
        numbers = map(str, range(start + 1, start + 1 + len(values)))
        lines: Iterable[str] = map(" ".join, zip(numbers, values, strict=True))
        marks = self._marks and self._marks[start : start + len(values)]
        if marks and any(marks):
            lines = [line for line, mark in zip(lines, marks, strict=True) if not mark]
        text = "\r\n".join(lines)
        return f"{text}\r\n".encode("ascii") if text else b""

    def _loaded_listing(self) -> Listing:
        if self._listing is None:
            raise RuntimeError("the listing was not loaded")
        return self._listing
