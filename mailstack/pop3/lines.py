"""Octets as they arrive become command lines; how the network cut them makes no difference."""

from __future__ import annotations

from typing import Final

LONGEST_OCTETS: Final = 253
"""A command longer than this is cut there, plus one octet by which the session can tell."""

_TAKEN_OCTETS: Final = 8192
"""What has been taken is forgotten seldom enough to stay linear, and often enough to stay small."""

ENDLESS_OCTETS: Final = 16 * 1024
"""Nobody who sends so much without a line end is going to send a command."""


class LineReader:
    """Splits a stream at CRLF, or at LF alone, as typed by hand; a bare CR ends nothing.

    Memory: what is fed and not yet taken (the connection stops reading beyond its bound), and at
    most one cut line.
    """

    __slots__ = ("_at", "_cut", "_held", "_skipped", "endless", "more")

    def __init__(self) -> None:
        self._held = bytearray()
        self._at = 0  # what lies before it has been taken
        self._cut: bytes | None = None  # the beginning of a long line, while its end is awaited
        self._skipped = 0
        self.endless = False
        self.more = 0
        """How many octets waited behind the line that was taken last."""

    def __len__(self) -> int:
        """The octets that wait to be taken."""
        return len(self._held) - self._at

    def feed(self, octets: bytes) -> None:
        """Add what came from the network."""
        self._held += octets

    def take(self, longest: int = LONGEST_OCTETS) -> bytes | None:
        """The next line without its end, of at most so many octets, or None until one is complete.

        Of a line that is too long only the beginning comes, one octet longer than allowed; once
        `endless` is set, its end was not waited for and there is nothing more to take.
        """
        held = self._held
        if self.endless or not held:
            return None
        start = self._at
        end = held.find(b"\n", start)
        if end < 0:
            return self._wait(longest)
        whole = end - start <= longest + 2
        line = bytes(held[start : end if whole else start + longest + 2])
        self._at = start = end + 1
        self.more = more = len(held) - start
        if not more:
            held.clear()
            self._at = 0
        elif start > _TAKEN_OCTETS:
            del held[:start]
            self._at = 0
        if self._cut is not None:
            line, self._cut = self._cut, None
            return line
        return line.removesuffix(b"\r") if whole else line

    def clear(self) -> None:
        """Forget what waits."""
        self._held.clear()
        self._at = 0

    def _wait(self, longest: int) -> bytes | None:
        waiting = len(self)
        if self._cut is None and waiting <= longest + 1:
            return None
        if self._cut is None:
            self._cut = bytes(self._held[self._at : self._at + longest + 1])
            self._skipped = 0
        self._skipped += waiting
        self.clear()
        self.more = 0
        if self._skipped < ENDLESS_OCTETS:
            return None
        self.endless = True
        return self._cut
