"""Content dressed for the wire: dots doubled, a final dot, and TOP's cut, one part at a time.

Content is canonical (each LF follows a CR), so a dot after LF is a dot after CRLF. Stuffing after
LF alone also means that a client which takes a bare LF for a line end never sees a lone dot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

HEADER: Final = -1
"""No blank line seen yet: the header goes out whole, whatever TOP's count of lines."""


END: Final = b".\r\n"
"""The line that ends a multi-line reply (RFC 1939 §3)."""


def dressed(pieces: Sequence[bytes], *, dotted: bool, lines: int | None = None) -> list[bytes]:
    """A content that is here as a whole, as it goes over the wire; see Transfer."""
    if not dotted and lines is None and pieces[-1].endswith(b"\r\n"):
        return [*pieces, END]
    transfer = Transfer(dotted=dotted, lines=lines)
    return [*map(transfer.feed, pieces), transfer.finish()]


class Transfer:
    """Turns the parts of one content into the lines that follow `+OK` (RFC 1939 §3, §7).

    `dotted` is the store's promise that stuffing is needed; without it parts pass unscanned.
    With `lines`, only the header, the blank line and so many lines of the body pass; `done` then
    tells that no more parts are wanted.
    """

    __slots__ = ("_dotted", "_left", "_lines", "_tail", "done")

    def __init__(self, *, dotted: bool, lines: int | None = None) -> None:
        self._dotted = dotted
        self._lines = lines
        self._left = HEADER
        # As if a line had just ended: a blank first line ends the header, a first dot is stuffed.
        self._tail = b"\r\n"
        self.done = False

    def feed(self, part: bytes) -> bytes:
        """The next part as it goes over the wire."""
        if self._lines is not None:
            part = self._cut(part, self._lines)
        if not part:
            return b""
        starts_with_dot = self._dotted and self._tail.endswith(b"\n") and part.startswith(b".")
        self._tail = (self._tail + part[-3:])[-3:]
        if not self._dotted:
            return part
        stuffed = part.replace(b"\n.", b"\n..")
        return b"." + stuffed if starts_with_dot else stuffed

    def finish(self) -> bytes:
        """What ends the reply; a last line that has no CRLF gets one first."""
        return END if self._tail.endswith(b"\r\n") else b"\r\n.\r\n"

    def _cut(self, part: bytes, lines: int) -> bytes:
        """The share of `part` that belongs to the header or to the first `lines` of the body."""
        if self.done:
            return b""
        body = 0
        if self._left == HEADER:
            # Overlap with what went before: the blank line may lie across the border of parts.
            joined = self._tail + part
            blank = joined.find(b"\r\n\r\n")
            if blank < 0:
                return part
            body = blank + 4 - len(self._tail)
            self._left = lines
        end = self._end_of_lines(part, body)
        return part if end == len(part) else part[:end]

    def _end_of_lines(self, part: bytes, start: int) -> int:
        """Where the lines still wanted end in `part`; counts them off."""
        wanted = self._left
        there = part.count(b"\n", start)
        if there < wanted:
            self._left -= there
            return len(part)
        self.done = True
        if not wanted:
            return start
        rest = part[start:].split(b"\n", wanted)[-1]
        return len(part) - len(rest)
