"""Where command lines end on the wire: CRLF and nothing else (RFC 5321 §2.3.8), without I/O."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from mailstack.peers import CROSS_PROTOCOL
from mailstack.smtp import replies

MAX_LINE: Final = 2048
"""Octets of a command line with its CRLF; RFC 5321 §4.5.3.1.4 asks for 512 and more for extensions."""

ENDLESS_LINE: Final = 64 * 1024
"""A line that goes on for longer is no mistake: nobody waits for its end."""

_TLS_CLIENT_HELLO: Final = b"\x16\x03"
_CONTROLS: Final = bytes([*range(0x20), 0x7F]).replace(b"\t", b"")


class Fault(NamedTuple):
    """Octets that are no command line: what to say, and whether the connection can go on."""

    reply: bytes
    hopeless: bool


_TOO_LONG: Final = Fault(replies.LINE_TOO_LONG, hopeless=False)
_TOO_LONG_TO_GO_ON: Final = Fault(replies.LINE_TOO_LONG, hopeless=True)
_BARE_NEWLINE: Final = Fault(replies.BAD_LINE_END, hopeless=True)
_NOT_SMTP: Final = Fault(replies.NOT_SMTP, hopeless=True)


class LineCutter:
    """Finds the next line of an input. How the input was cut into segments makes no difference.

    A line that is too long is dropped as it comes and named once it has ended: its tail must never
    be taken for a command.
    """

    __slots__ = ("_dropped",)

    def __init__(self) -> None:
        self._dropped = 0  # octets of the line that is too long and has not ended

    def cut(self, given: bytes, position: int) -> tuple[bytes | Fault | None, int]:
        """The line at this position, without its CRLF, and where the next begins; None while it has no end.

        A line is not looked into: a CR or LF within is for whoever obeys it to refuse.
        """
        end = given.find(b"\r\n", position)
        if end >= 0 and not self._dropped and end - position <= MAX_LINE - 2:
            return given[position:end], end + 2
        return self._unusual(given, position, end)

    def _unusual(self, given: bytes, position: int, end: int) -> tuple[Fault | None, int]:
        if not self._dropped and given.startswith(_TLS_CLIENT_HELLO, position):
            return _NOT_SMTP, len(given)
        # A CR at the end of the input may be half of the line's end.
        stop = end if end >= 0 else len(given) - given.endswith(b"\r", position)
        bare_newline = given.find(b"\n", position, stop)
        octets = self._dropped + (stop if bare_newline < 0 else bare_newline) - position
        if not self._dropped and octets > MAX_LINE - 2 and (fault := _fatal(given[position:stop])):
            return fault, len(given)
        if octets > ENDLESS_LINE:
            return _TOO_LONG_TO_GO_ON, len(given)
        if bare_newline >= 0:
            # A client that ends lines with LF alone would wait for ever, and one that mixes both
            # may have been given its lines by somebody else (RFC 5321 §2.3.8).
            return _BARE_NEWLINE, len(given)
        if end >= 0:
            self._dropped = 0
            return _TOO_LONG, end + 2
        if octets > MAX_LINE - 2:
            self._dropped = octets
            return None, stop
        return None, position


def _fatal(line: bytes) -> Fault | None:
    """Why a line that is too long ends the session, where it does: what comes behind it is no command."""
    if line[:4].upper() == b"BDAT":  # its chunk follows (RFC 3030 §2)
        return _TOO_LONG_TO_GO_ON
    return _NOT_SMTP if line.partition(b" ")[0].upper() in CROSS_PROTOCOL else None


class Words(NamedTuple):
    """A command line, understood as far as it is the same for all commands."""

    verb: bytes
    """The first word, in upper case."""
    argument: str | None
    """What follows it, without blanks around; None where that is no UTF-8, or has a tab in it."""
    damage: bytes | None
    """The reply to a line with any other control character in it, which no mail client sends."""


@lru_cache(maxsize=128)  # nearly all lines are ones that were said before
def words(line: bytes) -> Words:
    """The words of a line, given without its CRLF."""
    line = line.rstrip(b" \t")  # RFC 5321 §4.1.1 asks to bear with it
    verb, _, argument = line.partition(b" ")
    try:
        text = argument.decode("utf-8").strip(" ")
    except UnicodeDecodeError:
        text = None
    return Words(verb.upper(), None if b"\t" in argument else text, _damage(line))


def _damage(line: bytes) -> bytes | None:
    if line.translate(None, _CONTROLS) == line:
        # Behind a tab, as behind any mistake, comes the next command; but behind BDAT comes a chunk.
        return replies.BAD_OCTETS if b"\t" in line and line[:4].upper() == b"BDAT" else None
    if line.startswith(_TLS_CLIENT_HELLO):
        return replies.NOT_SMTP
    return replies.BAD_LINE_END if b"\n" in line or b"\r" in line else replies.BAD_OCTETS
