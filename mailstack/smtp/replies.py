"""SMTP replies as values, and the one table from facts to replies (RFC 5321 §4.2, RFC 3463)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from mailstack import errors


class Reply(NamedTuple):
    """One reply; every one but a greeting and 354 carries an enhanced status code (RFC 2034 §4)."""

    code: int
    status: str
    text: str

    @property
    def octets(self) -> bytes:
        """The reply line, its text made printable: a peer's own octets never come back raw."""
        status = f"{self.status} " if self.status else ""
        return f"{self.code} {status}{_printable(self.text)}\r\n".encode()


_LONGEST_TEXT: Final = 400
"""A reply line has at most 512 octets (RFC 5321 §4.5.3.1.5), and a text may name what the peer sent."""


def _printable(text: str) -> str:
    if text.isascii() and text.isprintable() and len(text) <= _LONGEST_TEXT:
        return text
    return "".join(c if " " <= c <= "~" else "?" for c in text[:_LONGEST_TEXT])


def multiline(code: int, lines: list[str]) -> bytes:
    """A reply of several lines (RFC 5321 §4.2.1)."""
    *first, last = lines
    return "".join([*(f"{code}-{line}\r\n" for line in first), f"{code} {last}\r\n"]).encode()


@lru_cache(maxsize=8)
def hello(hostname: str, *, max_octets: int, max_recipients: int, starttls: bool) -> bytes:
    """The reply to EHLO, with what we can do (RFC 5321 §4.1.1.1)."""
    keywords = [
        hostname,
        "PIPELINING",
        f"SIZE {max_octets}",
        "8BITMIME",
        "SMTPUTF8",
        "ENHANCEDSTATUSCODES",
        "CHUNKING",
        f"LIMITS RCPTMAX={max_recipients}",
        *(["STARTTLS"] if starttls else []),
    ]
    return multiline(250, keywords)


FOR_GOOD: Final = b"5"
"""How a reply begins where the peer asked for what it will never get (RFC 5321 §4.2.1)."""

OK: Final = Reply(250, "2.0.0", "ok").octets
SENDER_OK: Final = Reply(250, "2.1.0", "sender ok").octets
RECIPIENT_OK: Final = Reply(250, "2.1.5", "recipient ok").octets
CHUNK_OK: Final = Reply(250, "2.0.0", "chunk received").octets
GO_AHEAD: Final = Reply(354, "", "go ahead; end with CRLF.CRLF").octets
READY_FOR_TLS: Final = Reply(220, "2.0.0", "ready to start TLS").octets
BYE: Final = Reply(221, "2.0.0", "bye").octets
CANNOT_VERIFY: Final = Reply(252, "2.1.5", "cannot verify the user, but will take mail for delivery").octets
HELP: Final = Reply(
    214, "2.0.0", "HELO EHLO MAIL RCPT DATA BDAT RSET NOOP VRFY STARTTLS QUIT: see RFC 5321 and RFC 3030"
).octets
LMTP_HELP: Final = Reply(
    214, "2.0.0", "LHLO MAIL RCPT DATA BDAT RSET NOOP VRFY STARTTLS QUIT: see RFC 2033 and RFC 3030"
).octets

UNKNOWN_COMMAND: Final = Reply(500, "5.5.1", "command not recognised").octets
LINE_TOO_LONG: Final = Reply(500, "5.5.2", "the command line is too long").octets
BAD_LINE_END: Final = Reply(500, "5.5.2", "lines end with CRLF, and CR and LF stand nowhere else").octets
BAD_OCTETS: Final = Reply(500, "5.5.2", "a command has no control characters, and is ASCII or UTF-8").octets
NOT_SMTP: Final = Reply(554, "5.5.1", "this is a mail server").octets
NOT_IMPLEMENTED: Final = Reply(502, "5.5.1", "not implemented").octets
HELO_FIRST: Final = Reply(503, "5.5.1", "say HELO or EHLO first").octets
MAIL_FIRST: Final = Reply(503, "5.5.1", "say MAIL first").octets
NESTED_MAIL: Final = Reply(503, "5.5.1", "a transaction is under way already; RSET ends it").octets
NO_RECIPIENTS: Final = Reply(554, "5.5.1", "no valid recipients").octets
LMTP_NO_RECIPIENTS: Final = Reply(503, "5.5.1", "no valid recipients").octets
BDAT_UNDER_WAY: Final = Reply(503, "5.5.1", "BDAT has begun this message, BDAT must end it").octets
TOO_MANY_RECIPIENTS: Final = Reply(
    452, "4.5.3", "too many recipients; send the rest in another transaction"
).octets
TLS_ACTIVE: Final = Reply(503, "5.5.1", "TLS is active already").octets
PIPELINED_STARTTLS: Final = Reply(
    554, "5.5.1", "nothing may be sent behind STARTTLS before the handshake"
).octets
TOO_MANY_ERRORS: Final = Reply(421, "4.7.0", "too many errors, goodbye").octets
TOO_MANY_CONNECTIONS: Final = Reply(421, "4.7.0", "too many connections, try again later").octets
TOO_MANY_CONNECTIONS_FROM_THERE: Final = Reply(
    421, "4.7.0", "too many connections from your address or network, try again later"
).octets
TOO_MANY_COMMANDS: Final = Reply(421, "4.7.0", "too many commands, goodbye").octets
EARLY_TALKER: Final = Reply(554, "5.5.1", "nothing may be said before the greeting").octets
FULL_FOR_GOOD: Final = Reply(552, "5.2.2", "this mailbox is full").octets
GIVING_WAY: Final = Reply(421, "4.4.2", "nothing was said while others wait, goodbye").octets
TOO_SLOW: Final = Reply(421, "4.4.2", "the content of the message takes too long, goodbye").octets
TIMED_OUT: Final = Reply(421, "4.4.2", "nothing was said for too long, goodbye").octets
SHUTTING_DOWN: Final = Reply(421, "4.3.2", "the server is stopping, try again").octets

REPLIES: Final[dict[type[Exception], Reply]] = {
    errors.NotOurDomain: Reply(550, "5.7.1", "we do not relay; that domain is not served here"),
    errors.NoSuchMailbox: Reply(550, "5.1.1", "no such mailbox here"),
    # One reply is for all recipients: asked again, each RCPT says who is still there (RFC 5321 §4.2.5).
    errors.RecipientRemoved: Reply(451, "4.1.0", "a recipient was removed meanwhile, try again"),
    errors.MailboxDisabled: Reply(550, "5.2.1", "this mailbox is disabled"),
    errors.MaildropFull: Reply(452, "4.2.2", "this mailbox is full, try again later"),
    errors.MaildropFilled: Reply(452, "4.2.2", "a mailbox got full meanwhile, try again"),
    errors.NoPostmaster: Reply(450, "4.2.1", "there is no postmaster yet, try again later"),
    errors.MessageTooBig: Reply(552, "5.3.4", "the message is too big"),
    errors.HeaderTooBig: Reply(552, "5.3.4", "the header of the message is too big"),
    errors.MailLoop: Reply(554, "5.4.6", "the message has passed through too many servers: a mail loop"),
    errors.BareNewline: Reply(550, "5.6.0", "the message has a bare CR or LF; lines end with CRLF"),
    errors.BadSender: Reply(501, "5.1.7", "that is no address"),
    errors.BadAddress: Reply(501, "5.1.3", "that is no address"),
    errors.BadParameter: Reply(501, "5.5.4", "the parameters are wrong"),
    errors.UnknownParameter: Reply(555, "5.5.4", "a parameter is not supported"),
    errors.Utf8NotAskedFor: Reply(553, "5.6.7", "an address that is not ASCII needs SMTPUTF8"),
    errors.StoreFull: Reply(452, "4.3.1", "no space left, try again later"),
    errors.StoreBusy: Reply(452, "4.3.1", "too much mail is waiting, try again"),
    errors.StoreUnavailable: Reply(451, "4.3.0", "the store does not answer, try again"),
    Exception: Reply(451, "4.3.0", "local error, try again"),
}
"""What each fact is in SMTP; the last row is our own fault, and therefore temporary."""


_SAYS_WHAT_IS_WRONG: Final = (errors.BadAddress, errors.BadParameter, errors.UnknownParameter)


def reply_to(error: Exception) -> Reply:
    """The reply to a failure: that of its own class, or of the nearest one above it."""
    reply = next(REPLIES[kind] for kind in type(error).__mro__ if kind in REPLIES)
    return reply._replace(text=str(error)) if isinstance(error, _SAYS_WHAT_IS_WRONG) else reply
