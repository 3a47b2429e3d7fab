"""The service: builds the objects, passes them to each other, starts and stops."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

import uvloop

from mailstack.service import lifecycle, roles, sockets, supervisor
from mailstack.settings import Settings


def run(settings: Settings, wanted: Sequence[str], workers: int, command: Sequence[str]) -> int:
    """Serve until told to stop; return the exit code.

    `command` is what starts one process of the same service, for `workers` above one.
    """
    listening = sockets.inherited(os.environ) or sockets.bind(roles.addresses(settings, wanted))
    keeps_house = not wanted or "housekeeping" in wanted
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if workers == 1:
            return runner.run(lifecycle.serve(settings, listening, keeps_house=keeps_house))
        # Limits are those of the whole server; each worker gets its share.
        share = {"MAILSTACK_SMTP__MAX_CONNECTIONS": str(-(-settings.smtp.max_connections // workers))}
        return runner.run(supervisor.supervise(command, share, workers, listening))
