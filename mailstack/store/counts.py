"""How often things have happened in this process: plain numbers, for whoever asks now and then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

SLOW_SECONDS: Final = (0.005, 0.02, 0.1, 0.5, 2.0)
"""The steps by which commits are told apart."""


class Counts(Counter[str]):
    """Belongs to the event loop; a name with a label is `name:label`."""

    __slots__ = ()

    def add_replies(self, name: str, replies: Iterable[str]) -> None:
        """One more for each reply, told apart by its code."""
        self.update(f"{name}:{reply[:3]}" for reply in replies)


class Commits:
    """How long the writer's batches have taken; belongs to the event loop."""

    __slots__ = ("jobs", "seconds", "steps")

    def __init__(self) -> None:
        self.jobs = 0
        self.seconds = 0.0
        self.steps = [0] * (len(SLOW_SECONDS) + 1)

    def add(self, jobs: int, seconds: float) -> None:
        """One batch."""
        self.jobs += jobs
        self.seconds += seconds
        self.steps[sum(seconds > step for step in SLOW_SECONDS)] += 1
