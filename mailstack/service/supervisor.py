"""`--workers N`: several processes on the same listening sockets, started and stopped together.

The supervisor has read all the code, and no thread and no event loop ever runs in it: so it can fork at
any time, and what it has read is memory that its workers share. To them it is the service manager:
what they say to one (sd_notify(3)) comes here, by a pair of sockets for each that nobody else can reach,
and the real one hears of all of them together.
"""

from __future__ import annotations

import ctypes
import math
import os
import select
import selectors
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from mailstack import log, memory
from mailstack.service.heartbeat import READY
from mailstack.service.systemd import Manager, fields, status
from mailstack.service.tickets import TicketKeys

_PAUSE_SECONDS: Final = 1.0
"""Between the death of a worker and its successor's start."""

_STOP_SECONDS: Final = 50.0
"""So long the workers may take to stop: more than they give a session, less than the unit gives us."""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def supervise(workers: int, manager: Manager, tickets: TicketKeys) -> int | Manager:
    """Keep so many processes running until SIGTERM or SIGINT; for a process without threads.

    All of them have the ticket keys of the day, and no older ones.

    Returns as fork(2) does, in each of them: in a worker, who is to serve now, the manager that it has;
    in the supervisor, at the end, 0 or the exit code of a worker that could not start.
    """
    memory.settle()  # before the forks: a search for cycles would write to what is shared
    crew = _Crew(workers, manager, tickets)
    try:
        return crew.work()
    finally:
        crew.end()


class _Worker(NamedTuple):
    number: int
    pid: int
    output: int
    """Where its standard output is read, which says that it is ready, and ends when it has died."""
    words: socket.socket
    """Where it is heard what it tells its manager."""

    def close(self) -> None:
        """Hear it no more."""
        os.close(self.output)
        self.words.close()


class _Crew:
    """The workers by number, and what has been heard of them; ended in the worker as in the supervisor."""

    def __init__(self, workers: int, manager: Manager, tickets: TicketKeys) -> None:
        self._workers = workers
        self._manager = manager
        self._tickets = tickets
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
        self._rung.setblocking(False)
        signal.set_wakeup_fd(self._rung.fileno())
        self._handlers = {each: signal.signal(each, lambda *_: None) for each in _SIGNALS}

    def work(self) -> int | Manager:
        """Start everybody, one after the other, then put a new worker in the place of each that dies."""
        for number in range(self._workers):
            if self._stopping:
                return 0
            if manager := self._fork(number):
                return manager
            while number not in self._ready and not self._stopping:
                died = self._hear(None)
                if number in died:
                    return died[number]
        if not self._stopping:
            self._manager.notify("READY=1", self._status())
            print(READY, flush=True)
        while not self._stopping:
            turns_in = self._tickets.turn()
            due = min(self._successors.values(), default=math.inf)
            self._hear(max(min(due - time.monotonic(), turns_in), 0))
            for number in [each for each, due in self._successors.items() if due <= time.monotonic()]:
                del self._successors[number]
                if manager := self._fork(number):
                    return manager
        return 0

    def end(self) -> None:
        """Stop those who run, which a worker knows none of, and be no supervisor any more.

        Who is stuck, or stopped by a signal, is killed.
        """
        if self._running:
            self._manager.notify("STOPPING=1")
        self._tell(signal.SIGTERM)
        until = time.monotonic() + _STOP_SECONDS
        for worker in self._running.values():
            if not _ends(worker.pid, until):
                log.event("worker killed", worker=worker.number, pid=worker.pid)
                os.kill(worker.pid, signal.SIGKILL)
            os.waitpid(worker.pid, 0)
            worker.close()
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._selector.close()
        self._bell.close()
        self._rung.close()
        self._manager.close()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _fork(self, number: int) -> Manager | None:
        """Start a worker; the manager of this process if this is it."""
        supervisor = os.getpid()
        output, input_ = os.pipe()
        words, connection = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        sys.stdout.flush()
        # What a worker is told before it is out of `end` waits until then.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            for descriptor in (output, input_, words.detach(), connection.detach()):
                os.close(descriptor)
            if number not in self._ready:
                raise  # the server does not start
            log.event("worker missing", worker=number, why=error.strerror)
            self._successors[number] = time.monotonic() + _PAUSE_SECONDS
            return None
        worker = _Worker(number, pid, output, words)
        if pid == 0:
            os.dup2(input_, 1)
            os.close(input_)
            for each in (worker, *self._running.values()):
                each.close()
            self._running.clear()
            self._handlers[signal.SIGHUP] = signal.SIG_IGN  # it is going to read the settings anyway
            _end_with(supervisor)
            return self._manager.passed_on(connection)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os.close(input_)
        connection.close()
        self._running[number] = worker
        self._selector.register(output, selectors.EVENT_READ, worker)
        self._selector.register(words, selectors.EVENT_READ, worker)
        return None

    def _hear(self, seconds: float | None) -> dict[int, int]:
        """Wait for a signal, or for a word of a worker; return the exit codes of those that have died."""
        died: list[_Worker] = []
        for key, _ in self._selector.select(seconds):
            if key.fileobj is self._bell:
                self._obey(self._bell.recv(4096))
            elif isinstance(key.fileobj, socket.socket):
                self._note(key.data.number, fields(key.fileobj.recv(4096)))
            elif said := os.read(key.data.output, 4096):
                if READY in said.decode().split():
                    self._ready.add(key.data.number)
            else:
                died.append(key.data)
        return {each.number: self._bury(each) for each in died}

    def _obey(self, signals: bytes) -> None:
        if signal.SIGHUP in signals:
            self._tell(signal.SIGHUP)
        self._stopping = self._stopping or signal.SIGTERM in signals or signal.SIGINT in signals

    def _note(self, number: int, said: Mapping[str, str]) -> None:
        """Pass on what the service manager wants to hear of all together."""
        if "STATUS" in said:
            self._statuses[number] = said["STATUS"]
        if "WATCHDOG" in said:
            self._alive.add(number)
        if len(self._alive) == self._workers:  # each has given a sign of life since the last one of all
            self._alive.clear()
            self._manager.notify("WATCHDOG=1", self._status())

    def _status(self) -> str:
        told = [self._statuses[number] for number in sorted(self._statuses)]
        return status(": ".join((f"{self._workers} processes", " | ".join(told))))

    def _bury(self, worker: _Worker) -> int:
        """Take one out who has closed its output, which is its end; return the exit code."""
        self._selector.unregister(worker.output)
        self._selector.unregister(worker.words)
        worker.close()
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
