"""What a message itself tells of how it came: when, from whom, and by which protocol (RFC 5321 §4.4)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from mailstack.errors import BadAddress
from mailstack.mail.address import parse_reverse_path

HEAD_OCTETS: Final = 64 * 1024
"""How much of a message is looked at; the trace fields are on top."""

_RECEIVED: Final = re.compile(rb"^received[ \t]*:[^\n]*(?:\n[ \t][^\n]*)*", re.IGNORECASE | re.MULTILINE)
_RETURN_PATH: Final = re.compile(
    rb"^return-path[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)", re.IGNORECASE | re.MULTILINE
)
_LINE_END: Final = re.compile(r"\r?\n")
_UTF8: Final = re.compile(rb"\bwith\s+utf8", re.IGNORECASE)  # the keywords of RFC 6531 §4.3
_OWN_LOCAL: Final = re.compile(rb"\bwith local\s+id\s+[a-z2-7]{8}-[0-9]+\b")  # of `mailstack deliver`
_HEADER_END: Final = re.compile(rb"^\r?\n", re.MULTILINE)


def received_at(head: bytes) -> datetime | None:
    """The time of the topmost `Received:` field, aware; None where there is none, or no time in it."""
    field = _RECEIVED.search(_header(head))
    if field is None or b";" not in field[0]:
        return None
    try:
        at = parsedate_to_datetime(field[0].rpartition(b";")[2].decode("latin-1").strip())
        return at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError, IndexError, TypeError):  # whatever its parser makes of a sender's text
        return None


def return_path(head: bytes) -> str | None:
    """The reverse-path in the topmost `Return-Path:`, empty for the null one; None where there is none."""
    field = _RETURN_PATH.search(_header(head))
    return None if field is None else reverse_path(field[1].decode("utf-8", "replace"))


def reverse_path(text: str) -> str:
    """The mailbox that a mail server wrote there, with or without brackets; empty for the null path.

    What is no mailbox is taken for the null path: it would be anything at all, control characters included.
    """
    text = _LINE_END.sub("", text).strip()
    try:
        mailbox, _ = parse_reverse_path(text if text.startswith("<") else f"<{text}>")
    except BadAddress:
        return ""
    return str(mailbox or "")


def is_internationalized(head: bytes) -> bool:
    """Whether it came with SMTPUTF8 at some hop, or at the last one to another mailstack by its `deliver`.

    Characters beyond ASCII in the header of any other are an old mistake, as of what a cron job hands to Exim
    (`with local`, too): no SMTPUTF8 has declared it internationalized (RFC 6531 §3.4), so it had no
    surrogate, and mail programs have seen it as it is, in content and in size.
    """
    fields = _RECEIVED.findall(_header(head))
    return any(map(_UTF8.search, fields)) or (bool(fields) and _OWN_LOCAL.search(fields[0]) is not None)


def _header(head: bytes) -> bytes:
    end = _HEADER_END.search(head)
    return head[: end.start()] if end else head
