"""The supervisor by itself: its workers are whatever the test wants them to be."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from mailstack.service.systemd import Manager
from tests.support.appliance import wait_until

PATIENCE = 20.0

BEGINNING = """
import os, signal, sys, time
from mailstack.service import supervisor
from mailstack.service.systemd import Manager
from mailstack.service.tickets import TicketKeys
"""

WORKER = """
outcome = supervisor.supervise(2, Manager.of(os.environ), TicketKeys())
if isinstance(outcome, int):
    sys.exit(outcome)
print("ready", flush=True)
while True:
    signal.pause()
"""


@contextmanager
def supervising(before: str = "", worker: str = WORKER, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """A supervisor that has said that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", BEGINNING + before + worker],
        env={**os.environ, **environ},
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


@contextmanager
def bound(folder: Path) -> Iterator[socket.socket]:
    """A service manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        manager.settimeout(PATIENCE)
        yield manager


def named_sockets(pid: int) -> set[str]:
    """The names of a process's unix sockets, paths or abstract ones, by which others reach it."""
    mine = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            mine.add(os.readlink(descriptor))
        except FileNotFoundError:  # it was that of looking
            continue
    rows = (line.split(maxsplit=7) for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:])
    return {row[7] for row in rows if len(row) == 8 and f"socket:[{row[6]}]" in mine}


def test_what_workers_say_is_heard_and_nobody_else_can_say_it(tmp_path: Path) -> None:
    telling = WORKER.replace("print(", "outcome.notify('WATCHDOG=1', f'STATUS=at {os.getpid()}'); print(")
    with bound(tmp_path) as manager:
        name = manager.getsockname()
        with supervising("", telling, NOTIFY_SOCKET=name, WATCHDOG_USEC="30000000") as process:
            workers = children(process)
            said = [manager.recv(4096).decode() for _ in range(2)]
            assert sorted(each.partition("\n")[0] for each in said) == ["READY=1", "WATCHDOG=1"]
            told = re.findall(r"at (\d+)", next(each for each in said if "WATCHDOG" in each))
            assert set(map(int, told)) == workers
            assert [named_sockets(pid) for pid in (process.pid, *workers)] == [set()] * 3
        assert named_sockets(os.getpid()) == {name}


def test_a_manager_that_does_not_listen_stops_nobody(tmp_path: Path) -> None:
    """Its queue is full after so many words, and the next one would wait, and the event loop with it."""
    most = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    with bound(tmp_path) as deaf, closing(Manager.of({"NOTIFY_SOCKET": deaf.getsockname()})) as manager:

        def notify() -> None:
            for _ in range(most + 3):
                manager.notify("WATCHDOG=1")

        worker = threading.Thread(target=notify, daemon=True)
        worker.start()
        worker.join(PATIENCE)
        assert not worker.is_alive()


def test_a_manager_that_is_not_there_is_no_failure(tmp_path: Path) -> None:
    with bound(tmp_path) as gone:
        manager = Manager.of({"NOTIFY_SOCKET": gone.getsockname()})
    with closing(manager):
        assert manager.listens
        manager.notify("READY=1")
    assert not Manager.of({"NOTIFY_SOCKET": str(tmp_path / "nowhere")}).listens
