"""Sets of uids as text, short where they follow each other: `3-17,20`."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Self


class Runs:
    """Numbers in the order in which they came, each run of successors kept as its ends: 16 octets."""

    __slots__ = ("_firsts", "_lasts", "_most")

    def __init__(self, most: int = sys.maxsize) -> None:
        """`most`: numbers that would make more runs than these are not kept."""
        self._firsts = array("q")
        self._lasts = array("q")
        self._most = most

    @classmethod
    def of(cls, numbers: Iterable[int]) -> Self:
        """All of the numbers."""
        made = cls()
        made.extend(numbers)
        return made

    def add(self, number: int) -> None:
        """One more number; a client that walks through its maildrop makes one run."""
        lasts = self._lasts
        if lasts and number == lasts[-1] + 1:
            lasts[-1] = number
        elif not (lasts and self._firsts[-1] <= number <= lasts[-1]):
            self._begin(number, number)

    def extend(self, numbers: Iterable[int]) -> None:
        """Several more."""
        lasts = self._lasts
        for number in numbers:
            if lasts and number == lasts[-1] + 1:
                lasts[-1] = number
            else:
                self.add(number)

    def without(self, others: Runs) -> Runs:
        """Those that are not among the others, which are in order."""
        left = Runs()
        for first, last in self:
            start, at = first, bisect_left(others._lasts, first)
            while at < len(others._firsts) and others._firsts[at] <= last:
                left._begin(start, others._firsts[at] - 1)
                start = others._lasts[at] + 1
                at += 1
            left._begin(start, last)
        return left

    def _begin(self, first: int, last: int) -> None:
        if first <= last and len(self._firsts) < self._most:
            self._firsts.append(first)
            self._lasts.append(last)

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The first and the last number of each run."""
        return zip(self._firsts, self._lasts, strict=True)

    def __str__(self) -> str:
        return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in self)


def parsed(runs: str) -> Iterator[tuple[int, int]]:
    """The first and the last number of each run of the text."""
    for run in runs.split(",") if runs else ():
        first, _, last = run.partition("-")
        yield int(first), int(last or first)


def among(number: int, runs: str) -> bool:
    """Whether the number is one of those that the text names."""
    return any(first <= number <= last for first, last in parsed(runs))


def count(runs: str) -> int:
    """How many numbers the text names."""
    return sum(last - first + 1 for first, last in parsed(runs))
