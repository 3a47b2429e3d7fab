"""Times as the tables keep them: whole microseconds since the epoch, UTC."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final

SECOND: Final = 1_000_000
"""What a column counts in a second."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def now() -> int:
    """This moment, for a column."""
    return time.time_ns() // 1000


def moment(microseconds: int) -> datetime:
    """A column's value as an aware time; exact, where a float would round."""
    return _EPOCH + timedelta(microseconds=microseconds)


def microseconds(at: datetime) -> int:
    """An aware time, for a column."""
    return (at - _EPOCH) // timedelta(microseconds=1)
