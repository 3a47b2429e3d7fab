"""What the store has done for those who wait on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """What became of one job: its result, or the error that came instead."""

    future: asyncio.Future[Any]
    result: Any
    error: BaseException | None


def deliver(outcomes: Iterable[Outcome]) -> None:
    """Wake everybody who waits; to be called on the loop, once for many."""
    for outcome in outcomes:
        settle(*outcome)


def settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    """Wake one who waits, unless he has gone away."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
