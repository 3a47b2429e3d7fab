"""The header of incoming content as it passes: `Return-Path:` goes, an empty one is ended, all else stays.

RFC 5321 §4.4: the server of final delivery writes the one `Return-Path:`, and a message that comes
with another would have two, of which clients believe either. And what it writes on top must not run
into content that begins with no field: a first line that begins with a blank would go on with our
`Received:`, and what is body here, where no rule looks, would be header to those who read it.
"""

from __future__ import annotations

import re
from typing import Final

from mailstack.mail.lines import dot_at_line_start

# RFC 5322 §2.1.1: as long as a line may be; a name that goes on longer without a colon is none. This is
# what bounds the octets held back, for a line itself may be as long as the message.
_MAX_NAME: Final = 998
_NAME: Final = rb"[!-9;-~]{1,%d}+[ \t]{0,%d}+" % (_MAX_NAME, _MAX_NAME)  # RFC 5322 §3.6.8, blanks of §4.5

_WHOLE_LINES: Final = re.compile(rb"(?:(?:%b:|[ \t])[^\n]*+\n)*" % _NAME)
_CONTINUATIONS: Final = re.compile(rb"(?:[ \t][^\n]*+\n)*")
_NAME_AND_COLON: Final = re.compile(_NAME + rb":")
_PERHAPS_A_NAME: Final = re.compile(_NAME)
_TRACE_NAME: Final = re.compile(rb"\n(received|return-path)[ \t]*+:", re.IGNORECASE)
_RETURN_PATH: Final = re.compile(rb"\nreturn-path[ \t]*+:[^\n]*+(?:\n[ \t][^\n]*+)*", re.IGNORECASE)

# The line before a message in an mbox, which broken senders leave there. It becomes a field, by
# Postfix's name, so that it is not the end of the header, and nothing is lost.
_FROM_LINE: Final = rb"(?!%b:)>?From " % _NAME
_FROM: Final = re.compile(_FROM_LINE)
_WHOLE_FROM_LINES: Final = re.compile(rb"(?:(?:%b|[ \t])[^\n]*+\n)*" % _FROM_LINE)
_UNFOLDED: Final = re.compile(rb"^(?=[^ \t])", re.MULTILINE)
_MAILBOX_LINE: Final = b"X-Mailbox-Line: "


class HeaderFilter:
    """Canonical content in chunks of any size, without the `Return-Path:` fields of its header.

    The header ends before the first line that is neither a field nor its continuation. Where no field is
    kept before that, and it is not the empty line, one is put there, so that the body does not begin in what
    is written on top (RFC 5322 §2.1). At most a field name is held back.
    """

    __slots__ = (
        "_after_line_end",
        "_at_top",
        "_dropping",
        "_held",
        "_in_header",
        "_is_empty",
        "_within_line",
        "dotted",
        "header_octets",
        "received_fields",
    )

    def __init__(self) -> None:
        self.received_fields = 0
        """How many `Received:` fields have come, for the detection of loops (RFC 5321 §6.3)."""
        self.header_octets = 0
        """How many octets the header has had so far, as they came, without the blank line."""
        self.dotted = False
        """Whether a line that went out begins with a dot, so that RETR has to stuff it (RFC 1939 §3)."""
        self._in_header = True
        self._at_top = True  # nothing has come but From lines
        self._is_empty = True  # nothing else was kept
        self._within_line = False  # of a field whose name is known
        self._dropping = False  # that field, or the last one, is a Return-Path
        self._held = b""  # the beginning of a line that may be a field or the blank line
        self._after_line_end = True  # of all that went out

    def feed(self, chunk: bytes) -> bytes:
        """What the next chunk adds to the content that is kept."""
        if self._in_header:
            chunk = self._header(self._held + chunk)
        return self._noted(chunk)

    def finish(self) -> bytes:
        """What was held back, where the content ended within a line."""
        held, self._held = self._held, b""
        return self._noted(self._body(held))

    def _noted(self, chunk: bytes) -> bytes:
        if chunk and not self.dotted:
            begins_with_dot = self._after_line_end and chunk.startswith(b".")
            self.dotted = begins_with_dot or dot_at_line_start(chunk, b"\n") >= 0
            self._after_line_end = chunk.endswith(b"\n")
        return chunk

    def _header(self, data: bytes) -> bytes:
        self._held = b""
        kept, at = self._rest_of_line(data) if self._within_line else (b"", 0)
        if self._dropping:
            at = self._end(_CONTINUATIONS, data, at)
        if not self.header_octets and data[:1] in (b" ", b"\t"):
            return self._body(data)  # a continuation of nothing
        if self._at_top and (self.header_octets or b"From " in data[at : at + 6]):
            start, at = at, self._end(_WHOLE_FROM_LINES, data, at)
            kept += _UNFOLDED.sub(_MAILBOX_LINE, data[start:at])
        end = self._end(_WHOLE_LINES, data, at)
        if at < end:
            self._at_top = False
            fields = self._fields(data[at:end])
            self._is_empty = self._is_empty and not fields
            kept += fields
        if end < len(data):
            kept += self._begun_line(data[end:])
        return kept

    def _end(self, lines: re.Pattern[bytes], data: bytes, start: int) -> int:
        """Where such lines end that begin at `start`; there may be none."""
        match = lines.match(data, start)
        end = match.end() if match else start
        self.header_octets += end - start
        return end

    def _rest_of_line(self, data: bytes) -> tuple[bytes, int]:
        end = data.find(b"\n") + 1
        self._within_line = not end
        end = end or len(data)
        self.header_octets += end
        return (b"" if self._dropping else data[:end]), end

    def _fields(self, lines: bytes) -> bytes:
        """What is kept of whole lines, the first of which is a field or goes on with one that is kept."""
        self._dropping = False
        behind_line_end = b"\n" + lines  # as each of them is now
        names = [name.lower() for name in _TRACE_NAME.findall(behind_line_end)]
        received = names.count(b"received")
        self.received_fields += received
        if received == len(names):
            return lines
        for match in _RETURN_PATH.finditer(behind_line_end):
            self._dropping = match.end() == len(behind_line_end) - 1
        return _RETURN_PATH.sub(b"", behind_line_end)[1:]

    def _begun_line(self, line: bytes) -> bytes:
        """What is kept of the last line of a chunk, or of all from the line where the header ends."""
        kept, is_from = line, False
        if match := _NAME_AND_COLON.match(line):
            name = match[0][:-1].rstrip(b" \t").lower()
            self.received_fields += name == b"received"
            self._dropping = name == b"return-path"
            self._at_top = False
        elif _PERHAPS_A_NAME.fullmatch(line) or line == b"\r":
            self._held = line
            return b""
        elif line[:1] in (b" ", b"\t"):
            is_from = self._at_top
        elif self._at_top and _FROM.match(line):
            kept, is_from = _MAILBOX_LINE + line, True
        else:
            return self._body(line)
        self._within_line = True
        self.header_octets += len(line)
        self._is_empty = self._is_empty and (self._dropping or is_from)
        return b"" if self._dropping else kept

    def _body(self, rest: bytes) -> bytes:
        """All from where the header ends, and before that the empty line where it has none of its own."""
        self._in_header = False
        ends_by_itself = not self._is_empty or rest[:2] in (b"", b"\r", b"\r\n")
        return rest if ends_by_itself else b"\r\n" + rest
