"""The grammar of commands: what stands behind a verb (RFC 5321 §4.1.1) becomes checked arguments."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple

from mailstack.errors import BadAddress, BadParameter, BadSender, UnknownParameter, Utf8NotAskedFor
from mailstack.mail.address import (
    MAX_DOMAIN_OCTETS,
    Mailbox,
    fold_domain,
    is_helo_name,
    parse_forward_path,
    parse_parameters,
    parse_reverse_path,
)

_MAIL_PARAMETERS: Final = frozenset({"SIZE", "BODY", "SMTPUTF8"})
_BODIES: Final = frozenset({"7BIT", "8BITMIME"})
_MAX_DIGITS: Final = 20  # RFC 1870 §3, and RFC 3030 §2 in practice

Grammar = Callable[[str], tuple[Any, ...]]
"""From all that follows the verb, without blanks around it, to the arguments of its method."""


class Mail(NamedTuple):
    """MAIL FROM:<reverse-path> [SIZE=...] [BODY=...] [SMTPUTF8]."""

    reverse_path: Mailbox | None
    octets: int
    utf8: bool


class Rcpt(NamedTuple):
    """RCPT TO:<forward-path>."""

    forward_path: Mailbox
    is_ascii: bool


class Bdat(NamedTuple):
    """BDAT octets [LAST]."""

    octets: int
    last: bool


# Mail comes from the same hosts and people, and to the same ones, again and again: what was right is right.
@lru_cache(maxsize=256)
def host(argument: str) -> tuple[str]:
    """HELO and EHLO: what the client calls itself.

    A scanner or a printer says what its owner called it, `my pc`, and nobody may be refused for a name that
    does not fit (RFC 5321 §4.1.4). The trace fields have the address that was seen instead of such a name.
    """
    name = argument.removesuffix(".")  # the root, which DNS has and RFC 5321 has not; some hosts say it
    if not (name and name.isprintable() and len(name.encode()) <= MAX_DOMAIN_OCTETS):
        raise BadParameter("that is no name of a host")
    # A U-label here is against RFC 6531 §3.7.1, and would make our `Received:` field no ASCII.
    u_labels = not name.isascii() and is_helo_name(name, utf8=True)
    return (fold_domain(name) if u_labels else name,)


@lru_cache(maxsize=256)
def mail(argument: str) -> Mail:
    """MAIL with SIZE (RFC 1870 §3), BODY (RFC 6152 §2) and SMTPUTF8 (RFC 6531 §3.4)."""
    path = _after_keyword(argument, "FROM:")
    try:
        reverse_path, rest = parse_reverse_path(path)
    except BadAddress as error:
        raise BadSender(str(error)) from error
    parameters = parse_parameters(rest)
    if unknown := parameters.keys() - _MAIL_PARAMETERS:
        raise UnknownParameter(f"the parameter {min(unknown)} is not supported")
    utf8 = "SMTPUTF8" in parameters
    if utf8 and parameters["SMTPUTF8"] is not None:
        raise BadParameter("SMTPUTF8 takes no value")
    if (parameters.get("BODY", "7BIT") or "").upper() not in _BODIES:
        raise BadParameter("BODY is 7BIT or 8BITMIME")
    if not utf8 and not path.isascii():
        raise Utf8NotAskedFor("an address that is not ASCII needs SMTPUTF8")
    return Mail(reverse_path, _octets(parameters.get("SIZE", "0") or ""), utf8)


@lru_cache(maxsize=256)
def rcpt(argument: str) -> Rcpt:
    """RCPT, which has no parameters here."""
    forward_path, rest = parse_forward_path(_after_keyword(argument, "TO:"))
    if unknown := parse_parameters(rest):
        raise UnknownParameter(f"the parameter {min(unknown)} is not supported")
    return Rcpt(forward_path, argument.isascii())


def bdat(argument: str) -> Bdat:
    """BDAT, RFC 3030 §2."""
    octets, _, last = argument.partition(" ")
    last = last.lstrip(" ")
    if last.upper() not in ("", "LAST"):
        raise BadParameter("BDAT takes the number of octets, then perhaps LAST")
    return Bdat(_octets(octets), bool(last))


@lru_cache(maxsize=1)  # of every message's DATA and QUIT: what was right is right
def nothing(argument: str) -> tuple[()]:
    """No argument."""
    if argument:
        raise BadParameter("this command takes no argument")
    return ()


def somebody(argument: str) -> tuple[()]:
    """VRFY: whoever it is, it makes no difference."""
    if not argument:
        raise BadParameter("whom do you mean?")
    return ()


def anything(_argument: str) -> tuple[()]:
    """NOOP, HELP, EXPN: an argument or none."""
    return ()


def _octets(digits: str) -> int:
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= _MAX_DIGITS):
        raise BadParameter("a number of octets is written in at most 20 decimal digits")
    return int(digits)


def _after_keyword(argument: str, keyword: str) -> str:
    """What follows `FROM:` or `TO:`; blanks there are wrong, and sent by enough clients to be taken."""
    if argument[: len(keyword)].upper() != keyword:
        raise BadParameter(f"this command is followed by {keyword}<address>")
    return argument[len(keyword) :].lstrip(" ")
