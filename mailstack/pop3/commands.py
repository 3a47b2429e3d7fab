"""The grammar of commands: a line without its CRLF becomes a verb and checked arguments.

Nothing is guessed: an argument is there or not, a number is decimal digits and nothing else, and
one surplus space is an error, so that no two readers can understand a line differently. Only blanks
at the end are borne with: some clients leave them there, and a QUIT that is refused removes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from mailstack.errors import Permanent

MAX_COMMAND_OCTETS: Final = 255
"""The longest command, its CRLF included (RFC 2449 §4)."""

_LANGUAGE_RANGE: Final = re.compile(rb"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*")

_ZERO: Final = ord("0")

_BLANKS: Final = b" \t"

_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")


class Refused(Permanent):
    """A command that is understood and cannot be done; its text goes to the client."""


class BadCommand(Refused):
    """A line that is no command, or none in this state; a row of them ends the session."""


Arguments = tuple[int | str | None, ...]
Grammar = Callable[[bytes | None], Arguments]
"""From all that follows the verb's first space (None without that space) to the arguments."""


def split(line: bytes) -> tuple[bytes, bytes | None]:
    """The verb in upper case (RFC 1939 §3: any case will do), and what follows its first space."""
    if len(line) > MAX_COMMAND_OCTETS - 2:
        raise BadCommand("line too long")
    if line[-1:] in _BLANKS and line[:5].upper() != b"PASS ":  # a password may end with any of them
        line = line.rstrip(_BLANKS)
    # A C library would end the line at a NUL: `PASS secret\0x` must not log in as `secret` does.
    if _CONTROL.search(line):
        raise BadCommand("control characters are not allowed")
    verb, space, rest = line.partition(b" ")
    return verb.upper(), rest if space else None


def nothing(rest: bytes | None) -> Arguments:
    """No argument."""
    if rest is not None:
        raise BadCommand("this command takes no argument")
    return ()


def message_number(rest: bytes | None) -> Arguments:
    """One message number (RFC 1939 §3: base 10)."""
    # bytes.isdigit knows ASCII only; int() alone would take "+1", " 1", "1_0" as well.
    if rest and rest.isdigit() and rest[0] != _ZERO:
        return (int(rest),)
    raise BadCommand("message numbers begin with 1" if rest == b"0" else "a message number is needed")


def optional_message_number(rest: bytes | None) -> Arguments:
    """One message number, or nothing for all messages."""
    return (None,) if rest is None else message_number(rest)


def message_number_and_lines(rest: bytes | None) -> Arguments:
    """TOP: a message number, and a count of lines that may be zero (RFC 1939 §7)."""
    number, _, lines = (rest or b"").partition(b" ")
    return *message_number(number), _count(lines)


def name(rest: bytes | None) -> Arguments:
    """USER: a login name; spaces only inside a quoted local-part."""
    if not rest or (b" " in rest and not rest.startswith(b'"')):
        raise BadCommand("USER needs one name")
    return (_text(rest),)


def secret(rest: bytes | None) -> Arguments:
    """PASS: all the rest, spaces too (RFC 1939 §7: the server may treat them as part of it)."""
    if not rest:
        raise BadCommand("PASS needs a password")
    return (_text(rest),)


def mechanism(rest: bytes | None) -> Arguments:
    """AUTH: a SASL mechanism and perhaps an initial response (RFC 5034 §4), or nothing at all."""
    if rest is None:
        return None, None
    name, space, response = rest.partition(b" ")
    if not name or b" " in response:
        raise BadCommand("AUTH needs a mechanism, and at most one response")
    return _text(name).upper(), _text(response) if space else None


def optional_language(rest: bytes | None) -> Arguments:
    """LANG: a language range (RFC 4647 §2.1), or nothing for a list."""
    if rest is None:
        return (None,)
    if rest != b"*" and not _LANGUAGE_RANGE.fullmatch(rest):
        raise BadCommand("LANG needs a language tag, such as en")
    return (rest.decode("ascii"),)


def looked_up(wanted: str, tags: Iterable[str]) -> str | None:
    """The best of our tags for a language range, by the lookup of RFC 4647 §3.4; `*` is the first."""
    known = {tag.lower(): tag for tag in tags}
    if wanted == "*":
        return next(iter(known.values()))
    subtags = wanted.lower().split("-")
    prefixes = ("-".join(subtags[:count]) for count in range(len(subtags), 0, -1))
    return next((known[prefix] for prefix in prefixes if prefix in known), None)


def _count(digits: bytes) -> int:
    if digits.isdigit() and (digits[0] != _ZERO or digits == b"0"):
        return int(digits)
    raise BadCommand("TOP needs a message number and a number of lines")


def _text(octets: bytes) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadCommand("not UTF-8") from error
