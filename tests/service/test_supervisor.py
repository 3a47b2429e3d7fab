"""The supervisor by itself: its workers are whatever the test wants them to be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mailstack.service import systemd
from tests.support.appliance import wait_until

PATIENCE = 20.0

BEGINNING = """
import os, signal, sys, time
from mailstack.service import supervisor
"""

WORKER = """
code = supervisor.supervise(2)
if code is not None:
    sys.exit(code)
print("ready", flush=True)
while True:
    signal.pause()
"""


@contextmanager
def supervising(before: str = "", worker: str = WORKER) -> Iterator[subprocess.Popen[str]]:
    """A supervisor that has said that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", BEGINNING + before + worker],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


def children(process: subprocess.Popen[str]) -> set[int]:
    """Its workers, the dead that nobody has buried among them."""
    return set(map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()))


def test_a_worker_that_is_stuck_does_not_keep_the_server_from_stopping() -> None:
    deaf = WORKER.replace("print(", "signal.signal(signal.SIGTERM, signal.SIG_IGN); print(")
    with supervising("supervisor._STOP_SECONDS = 0.3", deaf) as process:
        workers = children(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert not any(Path(f"/proc/{each}").exists() for each in workers)


def replaced(process: subprocess.Popen[str], victim: int) -> None:
    """Kill a worker, and wait until another is in its place."""
    os.kill(victim, signal.SIGKILL)
    wait_until(
        lambda: len(children(process)) == 2 and victim not in children(process), what="a new worker starts"
    )


def test_without_a_process_to_be_had_the_others_go_on() -> None:
    no_more = """
supervisor._PAUSE_SECONDS = 0.05
fork, forks = os.fork, iter([None, None, OSError(11, "no process"), OSError(12, "no memory")])
def scarce():
    if error := next(forks, None):
        raise error
    return fork()
os.fork = scarce
"""
    with supervising(no_more) as process:
        victim, other = children(process)
        replaced(process, victim)
        assert other in children(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_nothing_is_left_of_those_who_died() -> None:
    with supervising("supervisor._PAUSE_SECONDS = 0.0") as process:
        descriptors = Path(f"/proc/{process.pid}/fd")
        before = len(list(descriptors.iterdir()))
        theirs = {len(list(Path(f"/proc/{each}/fd").iterdir())) for each in children(process)}
        for _ in range(100):
            replaced(process, min(children(process)))
        assert len(list(descriptors.iterdir())) == before
        successor = max(children(process))
        wait_until(
            lambda: len(list(Path(f"/proc/{successor}/fd").iterdir())) in theirs,
            what="the last worker has what the first had",
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_a_manager_that_does_not_listen_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue is full after so many words, and the next one would wait, and the event loop with it."""
    most = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())

    def notify() -> None:
        for _ in range(most + 3):
            systemd.notify("WATCHDOG=1")

    with systemd.managing() as manager:
        monkeypatch.setenv("NOTIFY_SOCKET", systemd.address(manager))
        worker = threading.Thread(target=notify, daemon=True)
        worker.start()
        worker.join(PATIENCE)
        assert not worker.is_alive()
