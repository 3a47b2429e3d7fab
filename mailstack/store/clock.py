"""Times as the tables keep them: whole microseconds since the epoch, UTC."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now() -> int:
    """This moment, for a column."""
    return time.time_ns() // 1000


def moment(microseconds: int) -> datetime:
    """A column's value as an aware time; exact, where a float would round."""
    return _EPOCH + timedelta(microseconds=microseconds)
