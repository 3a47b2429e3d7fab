"""Courier's `courierpop3dsizelist`, and the UIDLs that its POP3 server makes of it."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from mailstack.errors import BadData
from mailstack.mail import maildir

_FIRST: Final = re.compile(r"/([23]) ([0-9]{1,19}) ([0-9]{1,19})")
_LINE: Final = re.compile(r"(.+) [0-9]+ ([0-9]{1,19}):([0-9]{1,19})(?::[0-9]+)?")
_ESCAPED: Final = re.compile(r"""[^!-~]|['"+]""")


class SizeList(NamedTuple):
    """The whole list; lines that are no line of it are told in `problems`."""

    next_number: int
    uid_validity: int
    messages: dict[str, str]  # UIDLs, by the file's name up to the colon
    problems: list[str]


def parse_sizelist(text: str) -> SizeList:
    """Version 3 or 2; Courier itself throws every other away, and gives all messages new UIDLs: BadData."""
    first, *lines = text.split("\n")
    header = _FIRST.fullmatch(first)
    if header is None:
        raise BadData(f"line 1: this is not a courierpop3dsizelist of version 3 or 2: {first[:40]!r}")
    found = SizeList(int(header[2]), int(header[3]), {}, [])
    if lines and lines[-1]:
        found.problems.append(f"line {len(lines) + 1}: the file ends within a line")
    last = found.next_number - 1
    for number, line in enumerate(lines, 2):
        if not line:
            continue
        parts = _LINE.fullmatch(line)
        if parts is None:
            found.problems.append(
                f"line {number}: this is not a file name, a size and a number: {line[:40]!r}"
            )
            continue
        base = maildir.parse(parts[1]).base
        found.messages[base] = unique_id(int(parts[2]), int(parts[3]), base)
        last = max(last, int(parts[2]))
    return found._replace(next_number=last + 1)


def unique_id(number: int, uid_validity: int, base: str) -> str:
    """The UIDL of one message: of its number or, where it has none, of its file name."""
    if not number:
        return _ESCAPED.sub(_escape, base)
    return f"UID{number}-{uid_validity}" if uid_validity else f"UID{number}"


def _escape(found: re.Match[str]) -> str:
    return "".join(f"+{octet:02X}" for octet in found[0].encode(errors="surrogateescape"))
