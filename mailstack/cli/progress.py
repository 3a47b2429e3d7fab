"""A progress bar for work that takes longer than patience, on standard error of a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Protocol, TypeVar

T = TypeVar("T")


class Measured(Protocol):
    """One step of work that knows how far it has come."""

    @property
    def done(self) -> int:
        """So much is done."""

    @property
    def total(self) -> int | None:
        """Of so much, if that is known; it may change on the way."""


def followed(task: str, items: Iterable[T], total: int) -> list[T]:
    """All items, with a bar that shows how many of the total have come."""
    if not sys.stderr.isatty():
        return list(items)
    from rich.console import Console
    from rich.progress import track

    return list(track(items, description=task, total=total, console=Console(stderr=True), transient=True))


def watched(task: str, steps: Iterable[Measured]) -> None:
    """Go through all steps, with a bar that shows how far each says it is."""
    with ExitStack() as stack:
        bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            bar = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
            number = bar.add_task(task, total=None)
        for step in steps:
            if bar is not None:
                bar.update(number, completed=step.done, total=step.total)
