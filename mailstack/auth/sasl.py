"""SASL (RFC 4422) without I/O: an exchange yields challenges and asks, and returns who it is.

Whoever drives an exchange (POP3's AUTH, later that of submission) sends a `Challenge` to the client
and gives back the client's response, decoded; to the asks it gives answers, or throws in the error
that came instead. What the driver answers to `LogIn` or `Enter` is what the exchange returns.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from mailstack.auth.scram import Keys
from mailstack.errors import BadResponse

MAX_RESPONSE_OCTETS: Final = 12_288
"""The longest line of base64, its CRLF included; RFC 4954 §4 names this number."""


class Challenge(NamedTuple):
    """Octets for the client; the answer is its response."""

    octets: bytes


class LogIn(NamedTuple):
    """Check the secret of a name, and let in whom it belongs to.

    `acting_as` is an authorization identity: another spelling of the same account, or "" for none.
    """

    name: str
    secret: str
    acting_as: str = ""

    def __repr__(self) -> str:
        return f"LogIn(name={self.name!r})"  # a secret may not reach a log by way of a trace


@dataclass(frozen=True, slots=True)
class FindKeys:
    """The answer is Found, whoever that is; of a stranger it holds keys that fit no password."""

    name: str
    acting_as: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """The keys of a name, a nonce that was never used, and what the driver wants to have back."""

    keys: Keys
    nonce: str
    whose: Any = None

    def __repr__(self) -> str:
        return f"Found(whose={self.whose!r})"


@dataclass(frozen=True, slots=True)
class Judge:
    """The name has been proven, or not; raises LoginRefused unless it was and may log in."""

    found: Found
    proven: bool


@dataclass(frozen=True, slots=True)
class Enter:
    """Let in whom `Judge` found right."""

    found: Found


Ask = LogIn | FindKeys | Judge | Enter
Exchange = Generator[Challenge | Ask, Any, Any]


class Channel(NamedTuple):
    """What a mechanism may know of the connection."""

    plaintext: bool  # passwords may come over it as they are
    end_point: bytes | None = None  # tls-server-end-point (RFC 5929 §4), where PLUS is offered


class Mechanism(NamedTuple):
    """One row of the table: how an exchange begins, and where it can."""

    begin: Callable[[bytes | None, Channel], Exchange]  # with the initial response, if one came
    needs_plaintext: bool = False
    needs_keys: bool = False
    needs_end_point: bool = False

    def works(self, channel: Channel, *, keys: bool) -> bool:
        """Whether it may be offered on this channel; `keys`: every account has SCRAM keys."""
        return (
            (channel.plaintext or not self.needs_plaintext)
            and (keys or not self.needs_keys)
            and (channel.end_point is not None or not self.needs_end_point)
        )


def decoded(text: bytes) -> bytes:
    """The octets of a base64 line, of which there is exactly one spelling (RFC 4648 §3); else BadResponse."""
    try:
        octets = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise BadResponse("this is not base64") from error
    # The decoder lets pass what it does not use: bits beyond the last octet, on some versions more.
    if base64.b64encode(octets) != text:
        raise BadResponse("this is not base64")
    return octets


def encoded(octets: bytes) -> bytes:
    """The line of base64 for a challenge."""
    return base64.b64encode(octets)


def initial_response(text: bytes | None) -> bytes | None:
    """An initial response (RFC 5034 §4): None where there is none, and `=` for an empty one."""
    if text is None:
        return None
    return b"" if text == b"=" else decoded(text)


def text(octets: bytes) -> str:
    """UTF-8 without controls, of a name that goes into look-ups and logs; else BadResponse."""
    try:
        found = octets.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadResponse("this is not UTF-8") from error
    if any(character < " " or character == "\x7f" for character in found):
        raise BadResponse("control characters are not allowed")
    return found
