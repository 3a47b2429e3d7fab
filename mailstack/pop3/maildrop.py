"""The maildrop as one session sees it: fixed numbers, deletion marks, and its lists as text.

What was there at login stays numbered 1, 2, 3 ... to the end of the session, deleted or not
(RFC 1939 §4, §5).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Final

from mailstack.pop3.commands import Refused
from mailstack.pop3.pages import Asking, Entry, Pages
from mailstack.pop3.replies import Lines
from mailstack.pop3.stuffing import END
from mailstack.store.messages import Snapshot

SLICE_LINES: Final = 1000
"""Lines of LIST that are built at a time: other sessions are served in between."""

_NONE: Final = array("q")


class Maildrop:
    """The messages of a snapshot, and which of them are marked as deleted."""

    __slots__ = (
        "_all_messages",
        "_all_octets",
        "_deleted_octets",
        "_deleted_uids",
        "_marks",
        "_pages",
        "surrogates",
    )

    def __init__(self, snapshot: Snapshot, *, utf8: bool = False) -> None:
        self.surrogates = snapshot.surrogates > 0 and not utf8
        """Whether some messages are to be had as their surrogates (RFC 6858), in content and in size."""
        self._all_messages = snapshot.messages
        self._all_octets = snapshot.octets + (snapshot.surrogate_octets if self.surrogates else 0)
        self._pages: Final = Pages(snapshot, surrogates=self.surrogates)
        self._marks: bytearray | None = None  # an octet a message; made by the first DELE
        self._deleted_uids = _NONE
        self._deleted_octets = 0

    def __str__(self) -> str:
        """What LIST, RSET and PASS tell a person."""
        plural = "" if self.messages == 1 else "s"
        return f"{self.messages} message{plural} ({self.octets} octets)"

    @property
    def messages(self) -> int:
        """How many are not deleted (STAT)."""
        return self._all_messages - self.deleted

    @property
    def octets(self) -> int:
        """What those add up to (STAT)."""
        return self._all_octets - self._deleted_octets

    @property
    def deleted(self) -> int:
        """How many are marked as deleted."""
        return len(self._deleted_uids)

    @property
    def deleted_octets(self) -> int:
        """What the marked ones add up to."""
        return self._deleted_octets

    def check(self, number: int) -> None:
        """Refuse a number that this maildrop does not have, or that is deleted."""
        if number > self._all_messages:
            raise Refused(f"no such message, the maildrop has {self._all_messages}")
        if self._marks and self._marks[number - 1]:
            raise Refused(f"message {number} is deleted")

    def at_hand(self, number: int) -> Entry | None:
        """The message of that number, which has to be there and not deleted; None: ask for `entry`."""
        if number > self._all_messages or (self._marks and self._marks[number - 1]):
            self.check(number)  # for its words
        return self._pages.at_hand(number)

    def entry(self, number: int) -> Asking[Entry]:
        """The same in any case."""
        self.check(number)
        return self._pages.entry(number)

    def unique_id(self, number: int) -> Asking[str]:
        """The UIDL of that message, as above."""
        self.check(number)
        return self._pages.unique_id(number)

    def delete(self, entry: Entry) -> None:
        """Mark a message as deleted (RFC 1939 §5)."""
        if self._marks is None:
            self._marks = bytearray(self._all_messages)
            self._deleted_uids = array("q")
        self._marks[entry.number - 1] = 1
        self._deleted_uids.append(entry.uid)
        self._deleted_octets += entry.octets

    def reset(self) -> None:
        """Take back all marks (RFC 1939 §5)."""
        self._marks = None
        self._deleted_uids = _NONE
        self._deleted_octets = 0

    def deleted_uids(self) -> list[int]:
        """The uids of what is marked, in order."""
        return sorted(self._deleted_uids)

    def sizes(self) -> Lines:
        """LIST: slices of `number octets` lines, then the final dot."""
        start = 0
        for page in range(len(self._pages)):
            octets = (yield from self._pages.listing(page)).octets
            for at in range(0, len(octets), SLICE_LINES):
                some = octets[at : at + SLICE_LINES]
                yield self._lines(start, some)
                start += len(some)
        yield END

    def unique_ids(self) -> Lines:
        """UIDL: slices of `number unique-id` lines, then the final dot."""
        start = 0
        for page in range(len(self._pages)):
            unique_ids = yield from self._pages.unique_ids(page)
            for some in unique_ids.slices():
                yield self._lines(start, some)
                start += len(some)
        yield END

    def _lines(self, start: int, values: Sequence[object]) -> bytes:
        """The lines of the messages behind the first `start` ones; nothing else makes many as quickly."""
        numbers: Iterable[int] = range(start + 1, start + 1 + len(values))
        marks = self._marks and self._marks[start : start + len(values)]
        if marks and any(marks):
            kept = [not mark for mark in marks]
            numbers, values = list(compress(numbers, kept)), list(compress(values, kept))
        fields: list[object] = [None] * (2 * len(values))
        fields[::2], fields[1::2] = numbers, values
        return ("%d %s\r\n" * len(values) % tuple(fields)).encode("ascii")
