"""What servers and mail programs keep of their own in the headers of an mbox, and what is the message's.

The servers take these fields out before they send a message (Dovecot's mbox_hide_headers, and UW's
the same), so the message that clients know is without them.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

EXPORTED: Final = b"X-Mailstack-UIDL"
"""The field with the unique-id that an export of ours puts before a message, which is whole behind it."""

_STATE: Final = frozenset(
    {
        b"content-length", b"status", b"x-imap", b"x-imapbase", b"x-keywords", b"x-status", b"x-uid",
        # of Mozilla's programs
        b"x-mozilla-status", b"x-mozilla-status2", b"x-mozilla-keys", b"x-account-key",
    }
)  # fmt: skip
_FIELD: Final = re.compile(rb"([!-9;-~]+)[ \t]*:([^\n]*\n?(?:[ \t][^\n]*\n?)*)|[^\n]*\n?")
_MAX_DIGITS: Final = 18


class Header(NamedTuple):
    """A header taken apart."""

    octets: bytes  # the message's own, with the blank line
    content_octets: int | None = None  # Content-Length
    uid: int | None = None
    uid_validity: int | None = None  # X-IMAPbase or X-IMAP, which is of the whole file
    last_uid: int | None = None  # of the same field: no UID has been given beyond it
    x_uidl: str | None = None  # stays in the message, too
    exported: str | None = None  # by us
    internal: bool = False  # not a message: the first of a file may be a note of a server's to itself


def separated(header: bytes) -> Header:
    """Take apart a header as it is in the file, with its blank line."""
    kept: list[bytes] = []
    values: dict[bytes, bytes] = {}
    at = 0
    while at < len(header) and (found := _FIELD.match(header, at)):
        name, value = (found[1] or b"").lower(), (found[2] or b"").strip()
        if not at and name == EXPORTED.lower():
            return Header(header[found.end() :], exported=value.decode("latin-1"))
        if name in _STATE:
            values.setdefault(name, value)
        else:
            kept.append(found[0])
            if name == b"x-uidl":
                values.setdefault(name, value)
        at = found.end()
    uid_validity, last_uid = _base(values.get(b"x-imapbase") or values.get(b"x-imap") or b"")
    return Header(
        b"".join(kept),
        content_octets=_number(values.get(b"content-length")),
        uid=_number(values.get(b"x-uid")),
        uid_validity=uid_validity,
        last_uid=last_uid,
        x_uidl=values[b"x-uidl"].decode("latin-1") if b"x-uidl" in values else None,
        internal=b"x-imap" in values and b"folder internal data" in b"".join(kept).lower(),
    )


def _base(text: bytes) -> tuple[int | None, int | None]:
    """The UID validity and the last UID; where one is missing, servers take the field for none."""
    first, last = (*map(_number, text.split()[:2]), None, None)[:2]
    return (None, None) if first is None or last is None else (first, last)


def _number(text: bytes | None) -> int | None:
    return int(text) if text and text.isdigit() and len(text) <= _MAX_DIGITS else None
