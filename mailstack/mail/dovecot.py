"""Dovecot's `dovecot-uidlist`, and the UIDLs that its POP3 server makes of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from mailstack.errors import BadData
from mailstack.mail import maildir

DEFAULT_FORMAT: Final = "%08Xu%08Xv"

_MAX_NUMBER: Final = (1 << 32) - 1  # of UIDs and their validity, RFC 3501 §2.3.1.1


class Listed(NamedTuple):
    """What the list says of one message."""

    uid: int
    base: str  # the file's name up to the colon
    unique_id: str | None = None  # the UIDL that another server gave, or the file's name
    order: int | None = None  # the place in POP3's listing, before all that have none
    guid: str | None = None


class UidList(NamedTuple):
    """The whole list; lines that are no line of it are told in `problems`."""

    uid_validity: int
    next_uid: int
    messages: dict[str, Listed]  # by base
    problems: list[str]


def parse_uidlist(text: str) -> UidList:
    """Version 3, or 1, which Courier's `courierimapuiddb` looks like, too; raises BadData."""
    first, *lines = text.split("\n")
    version, *fields = first.split(" ")
    if version == "3":
        named = {field[:1]: field[1:] for field in fields}
        found = UidList(_number(named.get("V", "")), _number(named.get("N", "1")), {}, [])
        understood: Callable[[str], Listed | None] = _version_3
    elif version == "1" and len(fields) == 2:
        found = UidList(_number(fields[0]), _number(fields[1]), {}, [])
        understood = _version_1
    else:
        raise BadData(f"line 1: this is not a dovecot-uidlist of version 3 or 1: {first[:40]!r}")
    if not found.uid_validity:
        raise BadData("line 1: there is no UID validity in it")
    if lines and lines[-1]:
        found.problems.append(f"line {len(lines) + 1}: the file ends within a line")
    last = found.next_uid - 1
    for number, line in enumerate(lines, 2):
        if not line:
            continue
        if (listed := understood(line)) is None:
            found.problems.append(f"line {number}: this is not a UID and a file name: {line[:40]!r}")
            continue
        found.messages[listed.base] = listed
        last = max(last, listed.uid)  # the list may be newer than its first line
    return found._replace(next_uid=last + 1)


def _version_3(line: str) -> Listed | None:
    before, colon, name = line.partition(" :")
    uid, *fields = before.split(" ")
    base = maildir.parse(name).base
    if not colon or not base or not _number(uid):
        return None
    named = {field[:1]: field[1:] for field in fields}
    order = _number(named["O"]) if "O" in named else None
    # An empty P says that the file's name is the UIDL.
    unique_id = (named["P"] or base) if "P" in named else None
    return Listed(_number(uid), base, unique_id, order, named.get("G"))


def _version_1(line: str) -> Listed | None:
    uid, _, name = line.partition(" ")
    base = maildir.parse(name).base
    return Listed(_number(uid), base) if base and _number(uid) else None


def _number(text: str) -> int:
    """The number, or 0 where this is none that can be a UID."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else 0
    return number if number <= _MAX_NUMBER else 0


class Format:
    """`pop3_uidl_format`, as Dovecot 2.3 or 2.4 write it."""

    def __init__(self, text: str) -> None:
        """Raises BadData where it has a variable that files do not tell."""
        self._pieces = list(_pieces(text))

    def unique_id(self, *, uid: int, uid_validity: int, base: str = "", guid: str | None = None) -> str:
        """The UIDL of one message; a message that has no GUID is known by its file name."""
        values: dict[str, int | str] = {
            "uid": uid,
            "uidvalidity": uid_validity,
            "filename": base,
            "guid": guid or base,
        }
        return "".join(piece if name is None else _shown(values[name], piece) for name, piece in self._pieces)


_LETTERS: Final = {"u": "uid", "v": "uidvalidity", "f": "filename", "g": "guid"}
_MD5: Final = "md5"
_VARIABLE: Final = re.compile(
    r"%(?P<md5>M)?(?P<spec>0?[0-9]{0,2}X?)(?P<letter>[A-Za-z])"
    r"|%\{ *(?P<name>\w+) *(?:\| *hex(?:\( *(?P<width>[0-9]{1,2}) *\))? *)?(?P<end>\})"
    r"|(?P<percent>%%)|(?P<plain>[^%]+)|(?P<bad>%.?)"
)


def _pieces(text: str) -> Iterator[tuple[str | None, str]]:
    """Plain text, with None; and names of values, with how Python formats them."""
    for found in _VARIABLE.finditer(text):
        if found["plain"] or found["percent"]:
            yield None, found["plain"] or "%"
            continue
        name = _LETTERS.get(found["letter"] or "") or found["name"] or ""
        if name not in _LETTERS.values():
            raise BadData(
                f"{found[0]!r} in the format of unique-ids is none of %u, %v, %f, %g, %Mf and what Dovecot"
                " 2.4 calls them; fetch mail and unique-ids from the old server over POP3 instead, as"
                " docs/moving.md shows"
            )
        yield name, _python_format(found)


def _python_format(found: re.Match[str]) -> str:
    if found["name"]:
        if "|" not in found[0]:
            return ""
        return f"0{found['width']}x" if found["width"] else "x"
    if found["md5"]:
        return _MD5
    spec = found["spec"]
    return spec.removesuffix("X") + ("x" if spec.endswith("X") else "")


def _shown(value: int | str, how: str) -> str:
    if how == _MD5:
        octets = str(value).encode(errors="surrogateescape")  # as the file's name is
        return hashlib.md5(octets, usedforsecurity=False).hexdigest()
    return format(value, how) if isinstance(value, int) else value
