"""What a session asks of the world: it yields one of these and is sent the answer.

The session knows neither store nor socket; whoever drives it (the connection, or a test with
literal answers) fulfils the ask, or throws in the error that came instead.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from mailstack.auth import sasl
from mailstack.auth.sasl import Channel, Enter, FindKeys, Judge, LogIn

__all__ = ["Ask", "Authenticate", "Content", "Enter", "Expunge", "FindKeys", "Judge", "LoadListing"]
__all__ += ["LoadExpiry", "LoadLayout", "LoadMechanisms", "LoadUniqueIds", "LogIn", "OpenMessage"]


class Content(Protocol):
    """One message, part by part; canonical, so every line ends with CRLF."""

    @property
    def octets(self) -> int:
        """All its octets."""

    @property
    def dotted(self) -> bool:
        """Whether some line begins with a dot, and so has to be stuffed."""

    def whole(self) -> Sequence[bytes] | None:
        """All its pieces, where they are in memory already; to be asked once, and then sent."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The parts in order."""


@dataclass(frozen=True, slots=True)
class LoadMechanisms:
    """The answer is the names of the SASL mechanisms that may be used now over this channel."""

    channel: Channel


@dataclass(frozen=True, slots=True)
class LoadExpiry:
    """The answer is the Expiry of the open maildrop, else that of all; None where nobody knows now."""


@dataclass(frozen=True, slots=True)
class LoadLayout:
    """The answer is the Layout of the entries that were there at login."""


@dataclass(frozen=True, slots=True)
class LoadListing:
    """The answer is the Listing of one page of those, from its first uid to its last.

    With `surrogates` it has the sizes that a client sees which has not said UTF8 (RFC 6858 §4).
    """

    first_uid: int
    last_uid: int
    surrogates: bool = False


@dataclass(frozen=True, slots=True)
class LoadUniqueIds:
    """The answer is the UniqueIds of the same entries, in the same order."""

    first_uid: int
    last_uid: int


@dataclass(frozen=True, slots=True)
class OpenMessage:
    """The answer is the entry's Content, its first part read already.

    A `peek` (a TOP of few lines) tells that the rest will probably not be wanted, and that the client is not
    walking through its maildrop; `behind`, how many more may have been asked for already.
    """

    uid: int
    peek: bool
    behind: int = 0
    surrogates: bool = False


@dataclass(frozen=True, slots=True)
class Expunge:
    """Remove these entries, all or none; the answer (None) comes once that is on disk."""

    uids: Sequence[int]


Authenticate = sasl.Ask
"""Who is there."""

Announce = LoadMechanisms | LoadExpiry
"""What may be announced now, with or without a maildrop."""

Ask = Authenticate | Announce | LoadLayout | LoadListing | LoadUniqueIds | OpenMessage | Expunge
"""Who is let in by `LogIn` and `Enter` has the maildrop locked; their answer is a Snapshot of the store."""
