"""File names of a Maildir: what stays the same of them, and the order that servers take from them."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_SECONDS: Final = re.compile(r"[0-9]+")
_PLAUSIBLE_SECONDS: Final = range(10**8, 10**10)  # 1973 to 2286: other numbers are no times
_INFO: Final = ":2,"


class Name(NamedTuple):
    """A message's file name, taken apart."""

    base: str
    """What the message is known by: the name up to its first colon."""
    flags: str
    """Letters of `DFPRST` and, for keywords of Dovecot, of `a` to `z`; a message in `new` has none."""

    @property
    def seconds(self) -> int | None:
        """When the file was made, in seconds since the epoch, where the name begins with that."""
        found = int(_leading(self.base))
        return found if found in _PLAUSIBLE_SECONDS else None

    @property
    def order(self) -> tuple[int, str]:
        """Courier's order, and the one in which Dovecot numbers what is new to it."""
        return int(_leading(self.base)), self.base


def parse(name: str) -> Name:
    """Any file name."""
    base, info, flags = name.partition(_INFO)
    return Name(base.partition(":")[0], flags if info else "")


def _leading(base: str) -> str:
    found = _SECONDS.match(base)
    # Longer numbers than 64 bits hold are no times, and Python refuses to read very long ones.
    return found[0][:19] if found else "0"
