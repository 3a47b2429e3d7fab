"""Sets of uids as text, short where they follow each other: `3-17,20`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Self


class Runs:
    """Numbers in the order in which they came, each run of successors kept as its ends."""

    __slots__ = ("_runs",)

    def __init__(self) -> None:
        self._runs: list[list[int]] = []

    @classmethod
    def of(cls, numbers: Iterable[int]) -> Self:
        """All of the numbers."""
        made = cls()
        made.extend(numbers)
        return made

    def add(self, number: int) -> None:
        """One more number; a client that walks through its maildrop makes one run."""
        runs = self._runs
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        elif not (runs and runs[-1][0] <= number <= runs[-1][1]):
            runs.append([number, number])

    def extend(self, numbers: Iterable[int]) -> None:
        """Several more."""
        runs = self._runs
        for number in numbers:
            if runs and number == runs[-1][1] + 1:
                runs[-1][1] = number
            else:
                self.add(number)

    def __bool__(self) -> bool:
        return bool(self._runs)

    def __str__(self) -> str:
        return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in self._runs)


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
