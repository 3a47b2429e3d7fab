"""The log tells of a deaf loop for as long as its level is debug."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing

import pytest

from mailstack.service.watchdog import DEAF_SECONDS, WatchdogOfDebug


@pytest.mark.parametrize(
    ("levels", "times"),
    [
        (("info",), 0),
        (("debug",), 1),
        (("info", "debug"), 1),
        (("debug", "debug"), 1),
        (("debug", "warning"), 0),
        (("debug", "info", "debug"), 1),
    ],
)
async def test_deafness_is_told_at_debug_alone(
    levels: tuple[str, ...], times: int, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(WatchdogOfDebug(levels[0])) as watchdog:
        for level in levels[1:]:
            watchdog.adopt(level)
        until = time.thread_time() + 1.2 * DEAF_SECONDS
        while time.thread_time() < until:
            pass
        await asyncio.sleep(0.05)
    assert [record.getMessage() for record in caplog.records].count("loop was deaf") == times
