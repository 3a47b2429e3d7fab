"""The surrogate of an internationalized message (RFC 6858): headers in ASCII, bodies as they are.

It is made once, when the message is delivered, and kept beside it: a size that LIST prints has to
be the size of what RETR sends, in every session and for ever, and so may not depend on what a later
release makes of a header.
"""

from __future__ import annotations

import re
from email.message import Message
from pathlib import Path
from typing import Final

from mailstack.mail.downgrade import downgraded
from mailstack.mail.spool import Spool

_LONGEST_FIELD: Final = 64 * 1024
"""Octets of one field that are held to be understood; in a longer one `?` stands for what is no ASCII."""

_MOST_FIELDS: Final = 128 * 1024
"""Octets of all fields that are understood; no letter has so many, but a message of parts without end may."""

_MOST_LINES: Final = 100_000
"""Lines of all headers that are looked at, for each costs a step in Python; what comes behind is body."""

# Of the expression for the delimiters, which is made again for each multipart.
_MOST_MULTIPARTS: Final = 500
_DEEPEST: Final = 30
_BOUNDARY: Final = re.compile(rb"[^\r\n]{1,128}")  # RFC 2046 §5.1.1 allows 70 characters,
_BLANKS: Final = rb"[ \t]{0,800}+\r?\n"  # and blanks behind them
_LONGEST_DELIMITER: Final = 2 + 128 + 800 + 2
_NO_ASCII: Final = bytes(octet if octet < 0x80 else ord("?") for octet in range(256))


def surrogate(spool: Spool, directory: Path) -> Spool | None:
    """The message for clients that have not said UTF8, or None where it is the same; closed by the caller.

    Takes time with a large message: to be called on a thread. Raises what `Spool.write` raises.
    """
    if all(part.isascii() for part in spool.parts()):
        return None
    made = Spool(directory)
    try:
        downgrader = Downgrader()
        for part in spool.parts():
            made.write(downgrader.feed(part))
        made.write(downgrader.finish())
    except BaseException:
        made.close()
        raise
    if downgrader.changed:
        return made
    made.close()
    return None


def in_ascii(header: bytes) -> bytes:
    """A few fields, or a small message, as they are in the surrogate."""
    downgrader = Downgrader()
    return downgrader.feed(header) + downgrader.finish()


class Downgrader:
    """Canonical content in chunks of any size, with the fields of all its headers in ASCII.

    Those of the message and of its MIME parts, at any depth. At most one field is held back.
    """

    __slots__ = (
        "_boundaries",
        "_delimiter",
        "_field",
        "_held",
        "_in_header",
        "_lines",
        "_mid_line",
        "_multiparts",
        "_out",
        "_understood",
        "_unread",
        "changed",
    )

    def __init__(self) -> None:
        self.changed = False
        """Whether what came out differs from what went in."""
        self._boundaries: list[bytes] = []  # of the multiparts that have begun, the outermost first
        self._delimiter: re.Pattern[bytes] | None = None  # of all of these
        self._multiparts = 0
        self._in_header = True
        self._lines = 0  # of headers so far
        self._field = b""
        self._understood = 0  # octets of fields that were taken apart so far
        self._unread = False  # the field was too long, its lines pass one by one
        self._held = b""  # the beginning of a line
        self._mid_line = False  # the line's beginning has gone out already
        self._out: list[bytes] = []

    def feed(self, chunk: bytes) -> bytes:
        """What the next chunk adds."""
        data, self._held = self._held + chunk, b""
        at = 0
        while at < len(data):
            at = self._header(data, at) if self._in_header else self._body(data, at)
        return self._taken()

    def finish(self) -> bytes:
        """What was held back."""
        self._end_field()
        self._out.append(self._held)
        self._held = b""
        return self._taken()

    def _taken(self) -> bytes:
        out, self._out = self._out, []
        return b"".join(out)

    def _header(self, data: bytes, at: int) -> int:
        """One line of a header, or as much of it as there is; where the next one begins."""
        end = data.find(b"\n", at) + 1
        line = data[at : end or len(data)]
        self._lines += 1
        if self._lines > _MOST_LINES:
            self._end_field()
            self._in_header = False
            self._set_boundaries([])
            return at
        if self._mid_line:
            self._pass_unread(line)
            self._mid_line = not end
        elif not end and len(self._field) + len(line) <= _LONGEST_FIELD:
            self._held = line
        elif line[:1] not in (b" ", b"\t"):
            self._end_field()
            if end and b":" not in line:  # the blank line, or a body without one
                self._in_header = False
                self._out.append(line)
            else:
                self._take(line, whole=bool(end))
        else:
            self._take(line, whole=bool(end))
        return at + len(line)

    def _take(self, line: bytes, *, whole: bool) -> None:
        """One more line of the field."""
        if whole and not self._unread and len(self._field) + len(line) <= _LONGEST_FIELD:
            self._field += line
            return
        self._pass_unread(self._field + line)
        self._field = b""
        self._unread = True
        self._mid_line = not whole

    def _pass_unread(self, octets: bytes) -> None:
        self.changed = self.changed or not octets.isascii()
        self._out.append(octets.translate(_NO_ASCII))

    def _end_field(self) -> None:
        field, self._field = self._field, b""
        self._unread = False
        bounds_parts = field[:12].lower() == b"content-type"
        if field.isascii() and not bounds_parts:
            self._out.append(field)
            return
        self._understood += len(field)
        if self._understood > _MOST_FIELDS:
            self._pass_unread(field)
            return
        if bounds_parts:
            self._note_boundary(field)
        made = downgraded(field)
        self.changed = self.changed or made != field
        self._out.append(made)

    def _note_boundary(self, field: bytes) -> None:
        found = _boundary(field.partition(b":")[2].decode("latin-1").replace("\r\n", ""))
        boundary = (found or "").encode("latin-1", "replace")
        if boundary in self._boundaries or not _BOUNDARY.fullmatch(boundary):
            return
        self._multiparts += 1
        if self._multiparts <= _MOST_MULTIPARTS and len(self._boundaries) < _DEEPEST:
            self._set_boundaries([*self._boundaries, boundary])

    def _set_boundaries(self, boundaries: list[bytes]) -> None:
        self._boundaries = boundaries
        self._delimiter = None
        if boundaries:
            self._delimiter = re.compile(rb"^--%b%b" % (_any_of(boundaries), _BLANKS), re.MULTILINE)

    def _body(self, data: bytes, at: int) -> int:
        """Up to the line behind the next delimiter, as far as it is here."""
        if self._delimiter is None:
            self._out.append(data[at:])
            return len(data)
        if self._mid_line:
            end = data.find(b"\n", at) + 1
            self._mid_line = not end
            end = end or len(data)
            self._out.append(data[at:end])
            return end
        if match := self._delimiter.search(data, at):
            self._out.append(data[at : match.end()])
            self._begin_part(match[0][2:].rstrip(b" \t\r\n"))
            return match.end()
        start = _tail(data, at)
        self._out.append(data[at:start])
        self._held = data[start:]
        self._mid_line = not self._held and not data.endswith(b"\n")
        return len(data)

    def _begin_part(self, boundary: bytes) -> None:
        """The part's header comes; multiparts within the one before it have ended (RFC 2046 §5.1.2)."""
        self._in_header = True
        depth = self._boundaries.index(boundary) + 1
        if depth < len(self._boundaries):
            self._set_boundaries(self._boundaries[:depth])


def _tail(data: bytes, at: int) -> int:
    """Where a last line begins that may still become a delimiter."""
    start = max(data.rfind(b"\n") + 1, at)
    line = data[start : start + _LONGEST_DELIMITER]
    may_become = line[:2] == b"--"[: len(line)] and len(data) - start < _LONGEST_DELIMITER
    return start if may_become else len(data)


def _any_of(words: list[bytes]) -> bytes:
    """An expression for different words that looks at each octet once, however many there are."""
    if len(words) == 1:
        return re.escape(words[0])
    rests: dict[bytes, list[bytes]] = {}
    for word in words:
        rests.setdefault(word[:1], []).append(word[1:])
    each = [re.escape(first) + _any_of(behind) for first, behind in rests.items()]
    return each[0] if len(each) == 1 else b"(?:%b)" % b"|".join(each)


def _boundary(content_type: str) -> str | None:
    """What a multipart's parts are separated by; None where this is no multipart, or is broken."""
    message = Message()
    try:
        message["Content-Type"] = content_type
        return message.get_boundary() if message.get_content_maintype() == "multipart" else None
    except (
        Exception
    ):  # RFC 2231 lets a parameter name any charset, and Python's parser has errors of all kinds
        return None
