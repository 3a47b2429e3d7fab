"""The numbers of one process, as its control socket tells them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from mailstack.store.store import Store


class HasSessions(Protocol):
    """What is known here of a listener."""

    @property
    def sessions(self) -> int:
        """How many connections are open."""
        ...


def numbers(
    store: Store,
    *,
    smtp: Sequence[HasSessions],
    pop3: Sequence[HasSessions],
    octets_in_flight: int,
) -> dict[str, Any]:
    """What has happened since the start (`counts`), what is so now (`now`), and how commits went."""
    waiting_jobs, waiting_octets = store.waiting
    commits = store.commits
    return {
        "pid": os.getpid(),
        "counts": dict(store.counts),
        "now": {
            "smtp_connections": sum(each.sessions for each in smtp),
            "pop3_sessions": sum(each.sessions for each in pop3),
            "octets_in_flight": octets_in_flight,
            "writer_jobs": waiting_jobs,
            "writer_octets": waiting_octets,
            "leftover_octets": store.leftovers.octets,
            **_process(),
        },
        "commits": {"jobs": commits.jobs, "seconds": commits.seconds, "steps": list(commits.steps)},
    }


def _process() -> dict[str, float]:
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {
        "resident_octets": resident,
        "cpu_seconds": time.process_time(),
        "open_files": len(os.listdir("/proc/self/fd")),
    }
