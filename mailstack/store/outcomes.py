"""What the store has done for those who wait on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """What became of one job."""

    future: asyncio.Future[Any]
    done: Any  # its result, or the error that came instead


def deliver(outcomes: Iterable[Outcome]) -> None:
    """Wake everybody who waits; to be called on the loop, once for many."""
    for outcome in outcomes:
        settle(*outcome)


def settle(future: asyncio.Future[Any], done: Any) -> None:
    """Wake one who waits for a result, which may be an error, unless he has gone away."""
    if future.done():
        return
    if isinstance(done, BaseException):
        future.set_exception(done)
    else:
        future.set_result(done)
