"""What a disk may hold after its power was cut: made out of the log of everything it was told.

A disk with a cache in memory keeps what was written before its last flush. Of what came after that
it may have kept everything, nothing, or any part. A write may also say that it has to be on the
disk by itself (FUA).
"""

from __future__ import annotations

import enum
import os
import random
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

# The format is dm-log-writes': a super block, then entries, each a sector with this head and, for a
# write, the sectors that were written.
_SUPER: Final = struct.Struct("<QQQI")  # magic, version, entries, octets a sector
_HEAD: Final = struct.Struct("<QQQQ")  # sector, sectors, flags, octets of a mark
_MAGIC: Final = 0x6A736677736872
_FLUSH, _FUA, _DISCARD, _MARK = 1, 2, 4, 8


class Told(NamedTuple):
    """One thing that the disk was told."""

    begins: int  # where in the log
    place: int  # where on the disk, in octets
    octets: int
    flags: int
    content: int  # where in the log its content is; 0: it has none

    @property
    def flushes(self) -> bool:
        """Whether everything before it is on the disk from now on."""
        return bool(self.flags & _FLUSH)

    @property
    def lasting(self) -> bool:
        """Whether it is on the disk by itself."""
        return bool(self.flags & _FUA)


class Fate(enum.Enum):
    """What becomes of the writes after the last flush."""

    LOST = "all lost"
    SOME = "some lost"
    KEPT = "all kept"


class Cut(NamedTuple):
    """A moment, and what the disk makes of what it had in its cache then."""

    before: int  # the number of the first entry that the disk never heard
    fate: Fate


def story(log: Path) -> list[Told]:
    """The log's entries, in order."""
    with log.open("rb") as file:
        magic, version, _, sector = _SUPER.unpack(file.read(_SUPER.size))
        assert (magic, version) == (_MAGIC, 1), "this is no log of a disk"
        end = os.fstat(file.fileno()).st_size
        return list(_entries(file.fileno(), sector, end))


def _entries(file: int, sector: int, end: int) -> Iterator[Told]:
    # The super block's count is older than the log; what is written behind the last entry is nothing.
    at = sector
    while at + _HEAD.size <= end:
        place, sectors, flags, mark = _HEAD.unpack(os.pread(file, _HEAD.size, at))
        assert flags < 2 * _MARK, "an entry has flags that nobody knows"
        assert mark == 0, "nobody marks this log"
        written = sectors and not flags & _DISCARD
        content = at + sector if written else 0
        yield Told(at, place * sector, sectors * sector, flags, content)
        at += sector + (sectors * sector if written else 0)


def cuts(told: Sequence[Told], count: int, first: int, rng: random.Random) -> list[Cut]:
    """So many moments behind the entry `first`, the fates in turn.

    Half of them right after a flush or right before one, where a promise is just kept, or not yet.
    """
    flushes = [number for number, each in enumerate(told) if each.flushes and number >= first]
    assert flushes, "nobody ever flushed this disk"
    fates = list(Fate)
    made = []
    for number in range(count):
        before = rng.choice(flushes) + rng.choice((0, 1))
        if number % 2 == 0:
            before = rng.randrange(first, len(told) + 1)
        made.append(Cut(before, fates[number // 2 % len(fates)]))
    return made


def make(
    cut: Cut, told: Sequence[Told], *, before: Path, log: Path, target: Path, rng: random.Random
) -> None:
    """Write the disk's image as it is after the cut."""
    subprocess.run(["cp", "--sparse=always", before, target], check=True)
    flushed = max((number for number in range(cut.before) if told[number].flushes), default=-1)
    source, image = os.open(log, os.O_RDONLY), os.open(target, os.O_WRONLY)
    try:
        for number, each in enumerate(told[: cut.before]):
            kept = number < flushed or each.lasting or cut.fate is Fate.KEPT
            if kept or (cut.fate is Fate.SOME and rng.random() < 0.5):
                _write(image, source, each)
    finally:
        os.close(source)
        os.close(image)


def _write(image: int, source: int, told: Told) -> None:
    if told.flags & _DISCARD:
        octets = bytes(told.octets)
    elif told.content:
        octets = os.pread(source, told.octets, told.content)
    else:
        return
    os.pwrite(image, octets, told.place)
