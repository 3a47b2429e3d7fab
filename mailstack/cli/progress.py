"""A progress bar for work that takes longer than patience, on standard error of a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack
from typing import TypeVar

from mailstack.store.progress import Progress

T = TypeVar("T")


def watched(task: str, steps: Iterable[Progress]) -> None:
    """Go through all steps, with a bar that shows how far each says it is."""
    with ExitStack() as stack:
        if isinstance(steps, Generator):
            # After a Ctrl-C between two of them it would end once nobody remembers the trace.
            stack.callback(steps.close)
        bar = None
        if sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            bar = stack.enter_context(progress.Progress(console=Console(stderr=True), transient=True))
            number = bar.add_task(task, total=None)
        for step in steps:
            if bar is not None:
                bar.update(number, completed=step.done, total=step.total)


def followed(task: str, items: Iterable[T], total: int | None = None) -> list[T]:
    """All items, with a bar that shows how many of the total have come."""
    found: list[T] = []

    def steps() -> Iterator[Progress]:
        for each in items:
            found.append(each)
            yield Progress(len(found), total)

    watched(task, steps())
    return found
