"""Unique-ids (RFC 1939 §7), of our own form and of others."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

MAX_OCTETS: Final = 70

_VALID: Final = re.compile(rf"[!-~]{{1,{MAX_OCTETS}}}")
_OWN: Final = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")
_ENDS_IN_UID: Final = re.compile(r".*\.([1-9][0-9]{0,18})")

LARGEST: Final = (1 << 63) - 1
"""No database can be asked for a larger number."""


class Own(NamedTuple):
    """What the unique-ids are made of that this server gives: `<uid validity>.<uid>`."""

    uid_validity: int
    uid: int

    def __str__(self) -> str:
        return f"{self.uid_validity}.{self.uid}"


def is_valid(text: str) -> bool:
    """Whether a client may be told this: 1 to 70 characters from 0x21 to 0x7E."""
    return _VALID.fullmatch(text) is not None


def own(text: str) -> Own | None:
    """The parts of a unique-id that has our own form to the letter; other servers give such, too."""
    found = _OWN.fullmatch(text)
    return Own(int(found[1]), int(found[2])) if found and is_valid(text) else None


def uid_at_end(text: str) -> int | None:
    """The uid of the only entry that could have this unique-id and not be foreign (tables.IS_FOREIGN)."""
    found = _ENDS_IN_UID.fullmatch(text)
    return int(found[1]) if found and int(found[1]) <= LARGEST else None
