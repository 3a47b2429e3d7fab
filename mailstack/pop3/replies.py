"""Replies: a status line, and what follows it; and one table from failure to reply."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, NamedTuple

from mailstack.auth.sasl import encoded
from mailstack.errors import (
    LoggedInLately,
    LoginRefused,
    MaildropInUse,
    MailstackError,
    MessageDamaged,
    MessageGone,
    Permanent,
    Temporary,
    TooManyGuesses,
)
from mailstack.pop3.asks import Ask, Content
from mailstack.pop3.commands import Refused

MAX_LINE_OCTETS: Final = 512
"""The longest status line, its CRLF included (RFC 1939 §3)."""

Lines = Generator[Ask | bytes, Any, None]
"""Slices of whole lines, the final dot included; and asks, where the next one has to be read."""


class Message(NamedTuple):
    """The content that follows a status line: all of it, or its top with so many lines of the body."""

    content: Content
    lines: int | None = None


class Reply(NamedTuple):
    """One reply: its beginning, and at most one of `lines` and `message` after it."""

    text: bytes  # the status line; or all of a reply that is short
    lines: Lines | None = None
    message: Message | None = None
    start_tls: bool = False  # the handshake begins right after this reply (RFC 2595 §4)


def ok(text: str = "") -> Reply:
    """A success without more lines; `text` is ours and ASCII."""
    return Reply(_line("+OK", text))


def positive(text: str) -> bytes:
    """The status line of a success that more lines follow."""
    return _line("+OK", text)


def negative(text: str, code: str | None = None) -> Reply:
    """A refusal, with its extended response code (RFC 2449 §8) if it has one."""
    return Reply(_line(f"-ERR [{code}]" if code else "-ERR", text))


def challenge(octets: bytes) -> Reply:
    """A SASL challenge (RFC 5034 §4); an empty one is a plus sign and a space."""
    return Reply(b"+ " + encoded(octets) + b"\r\n")


class Row(NamedTuple):
    """What a failure says: the extended response code, and the text (None: the error's own)."""

    code: str | None
    text: str | None


# [LOGIN-DELAY] and [IN-USE] are RFC 2449 §8.1.1 and §8.1.2; [AUTH], [SYS/TEMP] and [SYS/PERM] are
# RFC 3206 §4 and §5.
FAILURES: Final[dict[type[BaseException], Row]] = {
    Refused: Row(None, None),
    LoginRefused: Row("AUTH", "wrong name or password"),
    MaildropInUse: Row("IN-USE", None),
    LoggedInLately: Row("LOGIN-DELAY", None),
    TooManyGuesses: Row("SYS/TEMP", None),
    MessageGone: Row("SYS/PERM", "the message is no longer there"),
    MessageDamaged: Row("SYS/PERM", None),
    Permanent: Row("SYS/PERM", "this cannot be done"),
    Temporary: Row("SYS/TEMP", "the mail store does not answer, try again later"),
    # Nobody foresaw it, so it may be over the next time: a client must never take it for final.
    BaseException: Row("SYS/TEMP", "local error, try again later"),
}


def reply_to(error: BaseException) -> Reply:
    """The refusal for an error: the row of its class, or of the nearest class above it."""
    row = next(FAILURES[kind] for kind in type(error).__mro__ if kind in FAILURES)
    if row.text is not None:
        return negative(row.text, row.code)
    return negative(str(error) if isinstance(error, MailstackError) else "", row.code)


def _line(status: str, text: str) -> bytes:
    line = f"{status} {text}" if text else status
    if not (line.isascii() and line.isprintable()):
        # An error's own sentence may quote a name; it must not end the line or paint a terminal.
        line = "".join(character if " " <= character <= "~" else "?" for character in line)
    return line[: MAX_LINE_OCTETS - 2].encode("ascii") + b"\r\n"
