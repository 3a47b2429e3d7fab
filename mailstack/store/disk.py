"""Whether the disk has room for mail: known from a look at it, which is good for a second."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from mailstack.errors import StoreFull
from mailstack.store.leftovers import Leftovers
from mailstack.store.readers import Readers
from mailstack.store.sqlite import PAGE_OCTETS, reusable_octets

_LOOK_SECONDS: Final = 1.0
_COPIES: Final = 2
"""A message is written twice before its space in the log can be used again: there, and in the file."""

_LEAST_OCTETS: Final = 16 * PAGE_OCTETS
"""What the smallest message may take of the log when it has a COMMIT to itself: a dozen pages."""


def _needed(octets: int) -> int:
    """What a message of so many octets takes of the disk."""
    return _LEAST_OCTETS + _COPIES * octets


class Disk:
    """The disk that one process' store is on; belongs to the event loop."""

    def __init__(self, folder: Path, *, reserve_octets: int, leftovers: Leftovers, readers: Readers) -> None:
        self._folder = folder
        self._reserve_octets = reserve_octets
        self._leftovers = leftovers
        self._readers = readers
        self._looked_at = -_LOOK_SECONDS
        self._left = 0  # octets above the reserve

    def surely_fits(self, octets: int) -> bool:
        """Whether a message of so many octets had room when the disk was last looked at, lately."""
        fresh = time.monotonic() - self._looked_at < _LOOK_SECONDS
        return fresh and _needed(octets) < self._left

    async def require(self, octets: int) -> None:
        """Raise StoreFull where a message of so many octets has no room now."""
        if not self.surely_fits(octets):
            self._looked_at = time.monotonic()
            self._left = await self._measured()
            if _needed(octets) >= self._left:  # however long ago that look began
                raise StoreFull("the disk is nearly full")

    def take(self, octets: int) -> None:
        """Count in, until the next look, a message for which there is room.

        So many senders at once do not get through to the reserve before that.
        """
        self._left -= _needed(octets)

    def is_full(self) -> bool:
        """Whether not even the smallest message has room beside the reserve, whatever is free in the file."""
        return self._free_octets() - self._reserve_octets < _LEAST_OCTETS

    async def _measured(self) -> int:
        """Octets above the reserve, on the disk and, where that is not enough, in the database file.

        What users delete goes free within the file, some of it at once; it must count, or else a full
        disk would refuse mail for ever. Half the reserve is left for the log all the same.
        """
        free = self._free_octets()
        space = free - self._reserve_octets
        if space < _LEAST_OCTETS and free > self._reserve_octets // 2:
            if await self._leftovers.slice():
                self._leftovers.hurry()
            return max(space, 0) + await self._readers.read(reusable_octets)
        return space

    def _free_octets(self) -> int:
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize
