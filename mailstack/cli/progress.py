"""A progress bar for work that takes longer than patience, on standard error of a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def followed(task: str, items: Iterable[T], total: int) -> list[T]:
    """All items, with a bar that shows how many of the total have come."""
    if not sys.stderr.isatty():
        return list(items)
    from rich.console import Console
    from rich.progress import track

    return list(track(items, description=task, total=total, console=Console(stderr=True), transient=True))
