"""The line that begins a message in an mbox: RFC 4155, and what else programs write there."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, NamedTuple

MAX_OCTETS: Final = 1000
"""A longer line begins no message."""

_DAY: Final = rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_MONTHS: Final = (
    b"Jan",
    b"Feb",
    b"Mar",
    b"Apr",
    b"May",
    b"Jun",
    b"Jul",
    b"Aug",
    b"Sep",
    b"Oct",
    b"Nov",
    b"Dec",
)
_MONTH: Final = rb"(?:%b)" % b"|".join(_MONTHS)
_TIME: Final = rb"\d{1,2}:\d\d(?::\d\d)?"
_ZONE: Final = rb"[+-]\d{4}|[A-Z]{1,5}"

# The time as asctime(3) writes it, with a zone where some have one; or else as RFC 5322 does.
_FROM: Final = re.compile(
    rb"From (?P<sender>[^\n]*?) *"
    rb"(?<= )(?:"
    rb"%(day)b +(?P<month>%(month)b) +(?P<mday>\d{1,2}) +(?P<time>%(time)b)"
    rb"(?: +(?P<zone>%(zone)b))? +(?P<year>\d{4})(?: +(?P<late_zone>[+-]\d{4}))?"
    rb"|%(day)b, +(?P<mday2>\d{1,2}) +(?P<month2>%(month)b) +(?P<year2>\d{4}) +(?P<time2>%(time)b)"
    rb"(?: +(?P<zone2>%(zone)b))?"
    rb")(?: [^\n]*)?\r?\n?" % {b"day": _DAY, b"month": _MONTH, b"time": _TIME, b"zone": _ZONE}
)
_BARE: Final = re.compile(rb"From - *\r?\n?")


class FromLine(NamedTuple):
    """What the line says of the message behind it."""

    sender: str  # as it is written; "-" and "MAILER-DAEMON" are nobody
    at: datetime | None  # of the delivery, UTC where it names no other zone; None where there was no such day


UNDATED: Final = FromLine("-", None)
"""The line as Mozilla's programs write it, with nothing in it."""


def parse(line: bytes) -> FromLine | None:
    """The line, or None where it begins no message: `From Russia with love` does not."""
    if _BARE.fullmatch(line):
        return UNDATED
    found = _FROM.fullmatch(line)
    if found is None:
        return None
    return FromLine(found["sender"].strip().decode("utf-8", "replace"), _at(found))


def _at(found: re.Match[bytes]) -> datetime | None:
    which = "" if found["month"] else "2"
    hours, minutes, *seconds = map(int, found[f"time{which}"].split(b":"))
    zone = found["zone2"] if which else found["late_zone"] or found["zone"]
    try:
        return datetime(
            int(found[f"year{which}"]),
            _MONTHS.index(found[f"month{which}"]) + 1,
            int(found[f"mday{which}"]),
            hours,
            minutes,
            min(seconds[0], 59) if seconds else 0,  # there are leap seconds
            tzinfo=_zone(zone or b""),
        ).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _zone(text: bytes) -> timezone:
    """Of numbers; names of zones mean too many things."""
    if text[:1] not in (b"+", b"-"):
        return UTC
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[3:5]))
    return timezone(-offset if text.startswith(b"-") else offset)
