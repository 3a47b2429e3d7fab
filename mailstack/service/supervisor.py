"""`--workers N`: several processes on the same listening sockets, started and stopped together.

The supervisor has read all the code, and no thread and no event loop ever runs in it: so it can fork at
any time, and what it has read is memory that its workers share. To them it is the service manager:
what they say to one (sd_notify(3)) comes here, and the real one hears of all of them together.
"""

from __future__ import annotations

import ctypes
import os
import select
import selectors
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from mailstack import log
from mailstack.service import memory, systemd
from mailstack.service.heartbeat import READY

_PAUSE_SECONDS: Final = 1.0
"""Between the death of a worker and its successor's start."""

_STOP_SECONDS: Final = 50.0
"""So long the workers may take to stop: more than they give a session, less than the unit gives us."""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def supervise(workers: int) -> int | None:
    """Keep so many processes running until SIGTERM or SIGINT; for a process without threads.

    Returns as fork(2) does, in each of them: None in a worker, who is to serve now; in the supervisor,
    at the end, 0 or the exit code of a worker that could not start.
    """
    memory.settle()  # before the forks: a search for cycles would write to what is shared
    crew = _Crew(workers)
    try:
        return crew.work()
    finally:
        crew.end()


class _Worker(NamedTuple):
    number: int
    pid: int
    output: int
    """Where its standard output is read, which says that it is ready, and ends when it has died."""


class _Crew:
    """The workers by number, and what has been heard of them; ended in the worker as in the supervisor."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._running: dict[int, _Worker] = {}
        self._ready: set[int] = set()
        self._alive: set[int] = set()
        self._statuses: dict[int, str] = {}
        self._successors: dict[int, float] = {}  # when they are due
        self._stopping = False
        self._bell, self._rung = socket.socketpair()
        self._bell.setblocking(False)
        # No epoll: a worker would share it, and take out of it what is the supervisor's.
        self._selector = selectors.PollSelector()
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._manager = systemd.managing()
        self._selector.register(self._manager, selectors.EVENT_READ)
        self._rung.setblocking(False)
        signal.set_wakeup_fd(self._rung.fileno())
        self._handlers = {each: signal.signal(each, lambda *_: None) for each in _SIGNALS}

    def work(self) -> int | None:
        """Start everybody, one after the other, then put a new worker in the place of each that dies."""
        for number in range(self._workers):
            if self._stopping:
                return 0
            if self._fork(number):
                return None
            while number not in self._ready and not self._stopping:
                died = self._hear(None)
                if number in died:
                    return died[number]
        if not self._stopping:
            systemd.notify("READY=1", self._status())
            print(READY, flush=True)
        while not self._stopping:
            due = min(self._successors.values(), default=None)
            self._hear(None if due is None else max(due - time.monotonic(), 0))
            for number in [each for each, due in self._successors.items() if due <= time.monotonic()]:
                del self._successors[number]
                if self._fork(number):
                    return None
        return 0

    def end(self) -> None:
        """Stop those who run, which a worker knows none of, and be no supervisor any more.

        Who is stuck, or stopped by a signal, is killed.
        """
        if self._running:
            systemd.notify("STOPPING=1")
        self._tell(signal.SIGTERM)
        until = time.monotonic() + _STOP_SECONDS
        for worker in self._running.values():
            if not _ends(worker.pid, until):
                log.event("worker killed", worker=worker.number, pid=worker.pid)
                os.kill(worker.pid, signal.SIGKILL)
            os.waitpid(worker.pid, 0)
            os.close(worker.output)
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._selector.close()
        for each in (self._bell, self._rung, self._manager):
            each.close()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _fork(self, number: int) -> bool:
        """Start a worker; whether this process is it."""
        supervisor = os.getpid()
        output, input_ = os.pipe()
        sys.stdout.flush()
        # What a worker is told before it is out of `end` waits until then.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.close(output)
            os.close(input_)
            if number not in self._ready:
                raise  # the server does not start
            log.event("worker missing", worker=number, why=error.strerror)
            self._successors[number] = time.monotonic() + _PAUSE_SECONDS
            return False
        if pid == 0:
            os.dup2(input_, 1)
            for descriptor in (output, input_, *(each.output for each in self._running.values())):
                os.close(descriptor)
            self._running.clear()
            self._handlers[signal.SIGHUP] = signal.SIG_IGN  # it is going to read the settings anyway
            if "NOTIFY_SOCKET" in os.environ:
                os.environ["NOTIFY_SOCKET"] = systemd.address(self._manager)
                os.environ.pop("WATCHDOG_PID", None)
            _end_with(supervisor)
            return True
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os.close(input_)
        self._running[number] = worker = _Worker(number, pid, output)
        self._selector.register(output, selectors.EVENT_READ, worker)
        return False

    def _hear(self, seconds: float | None) -> dict[int, int]:
        """Wait for a signal, or for a word of a worker; return the exit codes of those that have died."""
        died: dict[int, int] = {}
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._bell:
                self._obey(self._bell.recv(4096))
            elif key.fileobj is self._manager:
                self._note(*systemd.told(self._manager))
            elif said := os.read(key.data.output, 4096):
                if READY in said.decode().split():
                    self._ready.add(key.data.number)
            else:
                died[key.data.number] = self._bury(key.data)
        return died

    def _obey(self, signals: bytes) -> None:
        if signal.SIGHUP in signals:
            self._tell(signal.SIGHUP)
        self._stopping = self._stopping or signal.SIGTERM in signals or signal.SIGINT in signals

    def _note(self, pid: int, said: Mapping[str, str]) -> None:
        """Pass on what the service manager wants to hear of all together."""
        for number in (each.number for each in self._running.values() if each.pid == pid):
            if "STATUS" in said:
                self._statuses[number] = said["STATUS"]
            if "WATCHDOG" in said:
                self._alive.add(number)
        if len(self._alive) == self._workers:  # each has given a sign of life since the last one of all
            self._alive.clear()
            systemd.notify("WATCHDOG=1", self._status())

    def _status(self) -> str:
        told = [self._statuses[number] for number in sorted(self._statuses)]
        return systemd.status(": ".join((f"{self._workers} processes", " | ".join(told))))

    def _bury(self, worker: _Worker) -> int:
        """Take one out who has closed its output, which is its end; return the exit code."""
        self._selector.unregister(worker.output)
        os.close(worker.output)
        del self._running[worker.number]
        _, status = os.waitpid(worker.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._successors[worker.number] = time.monotonic() + _PAUSE_SECONDS
        if worker.number in self._ready:
            log.event("worker died", worker=worker.number, pid=worker.pid, code=code)
        return code

    def _tell(self, number: signal.Signals) -> None:
        for worker in self._running.values():
            os.kill(worker.pid, number)


def _ends(pid: int, until: float) -> bool:
    """Whether a child has ended by then, in seconds of time.monotonic()."""
    watched = os.pidfd_open(pid)
    try:
        return bool(select.select([watched], [], [], max(until - time.monotonic(), 0))[0])
    finally:
        os.close(watched)


def _end_with(supervisor: int) -> None:
    """Have the kernel send SIGTERM when the supervisor dies, however it dies (prctl(2)).

    Workers that lived on would keep the ports, and nobody could start the server again.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != supervisor:  # it died before we could ask
        raise SystemExit(1)
