"""`--workers N`: several processes on the same listening sockets, started and stopped together.

Workers are started as new programs, not forked: each is an ordinary `mailstack serve` that gets
its sockets as systemd would hand them over.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

from mailstack import log
from mailstack.service import systemd
from mailstack.service.heartbeat import ALIVE
from mailstack.service.sockets import Sockets

_PAUSE_SECONDS: Final = 1.0
"""Between the death of a worker and its successor's start."""

_HIGH_DESCRIPTOR: Final = 100
"""Where sockets are kept for workers: none of these is a number that one of them has to move to."""


async def supervise(
    command: Sequence[str], environ: Mapping[str, str], workers: int, sockets: Sockets
) -> int:
    """Keep so many workers running until SIGTERM or SIGINT; return 0, or a worker's code at start-up.

    `command` starts one of them, with `environ` over our own environment.
    """
    start = partial(_start, command, environ, sockets)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for reason in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(reason, stop.set)
    running: dict[int, Process] = {}
    loop.add_signal_handler(signal.SIGHUP, lambda: _signal(running, signal.SIGHUP))
    stopping = loop.create_task(stop.wait())
    alive = _Alive(workers)
    try:
        for number in range(workers):
            running[number] = await start()
            if not await _is_ready(running[number], stopping):
                return await running[number].wait() if not stop.is_set() else 0
        systemd.notify("READY=1", systemd.status(f"{workers} processes are serving"))
        print("ready", flush=True)
        keepers = [loop.create_task(_keep(number, running, start, alive)) for number in range(workers)]
        await stopping
        for keeper in keepers:
            keeper.cancel()
        return 0
    finally:
        systemd.notify("STOPPING=1")
        _signal(running, signal.SIGTERM)
        await asyncio.gather(*(process.wait() for process in running.values()))
        stopping.cancel()


async def _start(command: Sequence[str], environ: Mapping[str, str], sockets: Sockets) -> Process:
    """Start one worker."""
    named = [(name, each) for name, several in sockets.items() for each in several]
    descriptors = [fcntl.fcntl(each.fileno(), fcntl.F_DUPFD, _HIGH_DESCRIPTOR) for _, each in named]
    # The service manager hears of a worker from us alone.
    ours = ("NOTIFY_SOCKET", "WATCHDOG_PID")
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    told = {"LISTEN_FDS": str(len(named)), "LISTEN_FDNAMES": ":".join(name for name, _ in named)}
    try:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mailstack.service.worker", str(os.getpid())),
            ",".join(map(str, descriptors)),
            *command,
            stdout=asyncio.subprocess.PIPE,
            env={**inherited, **told, **environ},
            pass_fds=descriptors,
        )
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


async def _is_ready(process: Process, stopping: asyncio.Task[bool]) -> bool:
    assert process.stdout is not None
    line = asyncio.ensure_future(process.stdout.readline())
    await asyncio.wait({line, stopping}, return_when=asyncio.FIRST_COMPLETED)
    return line.done() and line.result() == b"ready\n"


class _Alive:
    """The sign of life of all workers together: the service manager hears it once each has given its own."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._heard: set[int] = set()

    async def listen(self, number: int, process: Process) -> None:
        """Read what a worker prints until it ends."""
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if line.strip().decode() == ALIVE:
                self._heard.add(number)
            if len(self._heard) == self._workers:
                self._heard.clear()
                systemd.notify("WATCHDOG=1")


async def _keep(
    number: int, running: dict[int, Process], start: Callable[[], Awaitable[Process]], alive: _Alive
) -> None:
    """Put a new worker in the place of one that died."""
    while True:
        await alive.listen(number, running[number])
        code = await running[number].wait()
        log.event("worker died", worker=number, pid=running[number].pid, code=code)
        await asyncio.sleep(_PAUSE_SECONDS)
        running[number] = await start()


def _signal(running: dict[int, Process], number: signal.Signals) -> None:
    for process in running.values():
        if process.returncode is None:
            process.send_signal(number)
