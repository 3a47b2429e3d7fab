"""The trace fields that final delivery writes in front of a message (RFC 5321 §4.4), as octets.

What a peer said comes in here as parsed values alone, for a line end within one would be a header
field of the peer's own making.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from mailstack.mail.address import Mailbox, is_helo_name

MAX_LINE = 78  # RFC 5322 §2.1.1, without the CRLF
# strftime would give the names in the language of the process.
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MINUTE = timedelta(minutes=1)
_NOT_IN_COMMENT = re.compile(r"[^ !-'*-\[\]-~]")  # RFC 5322 §3.2.2, ctext


class Arrival(NamedTuple):
    """How a message came in: what a `Received:` field tells about the last hop."""

    helo: str
    """The Domain or address literal that the peer gave in HELO, EHLO or LHLO."""
    address: str
    """The address of its Peer, without brackets; empty for a unix socket."""
    protocol: str
    """The keyword of RFC 3848 or RFC 6531 §4.3, such as `ESMTPS` or `UTF8SMTP`."""
    tls: str | None
    """Version and cipher of the TLS session, such as `TLSv1.3 TLS_AES_256_GCM_SHA384`."""
    session: str | None = None
    """The id of the connection, as the log has it."""
    connected_at: int | None = None
    """When the connection began, in microseconds since the epoch."""


@lru_cache(maxsize=256)  # the same people write
def return_path(reverse_path: Mailbox | None) -> bytes:
    """The Return-path-line of RFC 5321 §4.4; None is the null reverse-path."""
    return f"Return-Path: <{reverse_path or ''}>\r\n".encode()


def delivered_to(recipient: Mailbox) -> bytes:
    """The `Delivered-To:` field of RFC 9228: the mailbox for which this copy was deposited."""
    return f"Delivered-To: {recipient}\r\n".encode()


def received(
    arrival: Arrival,
    *,
    by: str,
    id: str,  # noqa: A002 - the clause's name in the RFC
    date: str,
    recipient: Mailbox | None,
) -> bytes:
    """The Time-stamp-line of RFC 5321 §4.4, folded.

    `id` is an Atom, `date` what `date_time` says. Give the recipient only where it is the only one:
    the others of a blind copy are nobody's business (RFC 5321 §7.6).
    """
    hop = _hop(arrival.helo, arrival.address, by, arrival.protocol, arrival.tls)
    if recipient:
        return f"{_folded(hop, f'id {id}', f'for <{recipient}>;', date).text}\r\n".encode()
    return f"{_folded(hop, f'id {id};', date).text}\r\n".encode()


@lru_cache(maxsize=2)  # the same for all messages of a second
def utc(second: int) -> str:
    """The date-time of that second since the epoch, in UTC."""
    return date_time(datetime.fromtimestamp(second, UTC))


def date_time(at: datetime) -> str:
    """The date-time of RFC 5322 §3.3, in the time zone of `at`, which must be aware."""
    offset = at.utcoffset()
    if offset is None:
        raise ValueError("a trace field needs a time with its zone")
    hours, minutes = divmod(abs(offset) // _MINUTE, 60)
    zone = f"{'+' if offset >= timedelta(0) else '-'}{hours:02}{minutes:02}"
    day, month = _DAYS[at.weekday()], _MONTHS[at.month - 1]
    return f"{day}, {at.day} {month} {at.year:04} {at.hour:02}:{at.minute:02}:{at.second:02} {zone}"


class _Field(NamedTuple):
    """A field as far as it is written, and the length of its last line."""

    text: str
    column: int


@lru_cache(maxsize=256)  # the same for all messages of a connection, and of a host
def _hop(helo: str, address: str, by: str, protocol: str, tls: str | None) -> _Field:
    """The Time-stamp-line up to where the message itself is named."""
    said, *seen = _from_domain(helo, address)
    comment = [f"({_NOT_IN_COMMENT.sub('', tls)})"] if tls else []
    begun = _Field(said, len(said))
    return _folded(begun, *seen, f"by {by}", f"with {protocol}", *comment)


def _from_domain(helo: str, address: str) -> tuple[str, ...]:
    """The From-domain, with the field name: what the peer called itself, and the address that was seen."""
    if not address:
        # A unix socket has no address, and without one an Extended-Domain can be no literal.
        said_domain = not helo.startswith("[") and is_helo_name(helo)
        return (f"Received: from {helo if said_domain else 'localhost'}",)
    seen = address_literal(address)
    said = helo if is_helo_name(helo) else seen
    return (f"Received: from {said}", f"({seen})")


def address_literal(address: str) -> str:
    """The address literal of RFC 5321 §4.1.3, of an address as a Peer has it."""
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _folded(field: _Field, *words: str) -> _Field:
    """The field with these words behind it, each on a new line where it would make its line too long."""
    text, column = field
    for word in words:
        if column + 1 + len(word) < MAX_LINE:
            text += f" {word}"
            column += 1 + len(word)
        else:
            text += f"\r\n    {word}"
            column = 4 + len(word)
    return _Field(text, column)
