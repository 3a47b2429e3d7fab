"""A server on which all is well, to be changed in one thing; and how bad a judge finds what it sees."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from mailstack.checks.facts import Disk, Facts, Machine, Memory, Store
from mailstack.checks.finding import Finding, Level
from mailstack.settings import Settings
from mailstack.store import schema

HOST: Final = "mail.example.org"
NOW: Final = datetime(2026, 11, 25, 3, tzinfo=UTC)
GIBIBYTE: Final = 1 << 30
DISK: Final = Disk(Path("/var/lib/mailstack"), 1, 100 * GIBIBYTE, 50 * GIBIBYTE, 1000, 900)
BOX: Final = Machine(HOST, Memory(GIBIBYTE, GIBIBYTE // 2), DISK, DISK._replace(device=2), True, ("9.8.7.6",))
STORE: Final = Store(
    "", schema.HEAD, (), True, ("example.org",), 3, NOW - timedelta(hours=2), NOW - timedelta(hours=1), NOW, 7
)
FINE: Final = Facts(NOW, Settings(hostname=HOST), machine=BOX, store=STORE)


def levels(judge: Callable[[Facts], Iterable[Finding]], facts: Facts) -> list[Level]:
    return [each.level for each in judge(facts)]
