"""A process that writes, so that the loop of the one it was forked from reads what comes next meanwhile.

Two threads of one process take turns: only one of them is in Python at a time, and with a busy loop beside
it, a batch took three times as long as alone. Batches go to this process by a socket, and a report comes back
for each, in `frames`.

It ends when the socket does, however its parent has ended. What waits then is not written: nobody would be
told, and who is told nothing sends it again.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from mailstack import log, memory
from mailstack.errors import StoreUnavailable
from mailstack.mail.spool import Spool
from mailstack.store import frames
from mailstack.store.batches import Batches, Task
from mailstack.store.engine import Database
from mailstack.store.writer import Writer

_READ_OCTETS: Final = 64 * 1024
_DIED: Final = frozenset({errno.EPIPE, errno.ECONNRESET})


class WritingProcess(NamedTuple):
    """One that was forked, before there is a loop to join it to."""

    pid: int
    connection: socket.socket

    def joined(self, writer: Writer) -> WritingHand:
        """The hand of a Writer on the running loop."""
        return WritingHand(self, writer)

    def end(self) -> int | None:
        """Let it end, wait for that, and return its exit code, or its signal below 0.

        None where it was waited for before.
        """
        self.connection.close()
        with suppress(ChildProcessError):
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return None


def fork(url: str) -> WritingProcess:
    """Start one that writes to this database; to be called where there is no thread and no loop yet.

    Raises StoreUnavailable where there can be no more processes.
    """
    ours, its = socket.socketpair()
    # What is garbage now must not close descriptors there that have got another meaning; and a later search
    # for cycles, in either process, would write to what they share.
    memory.settle()
    try:
        pid = os.fork()
    except OSError as error:
        ours.close()
        its.close()
        raise StoreUnavailable(f"the process that writes mail cannot be started: {error.strerror}") from error
    if pid:
        its.close()
        ours.setblocking(False)
        return WritingProcess(pid, ours)
    code = 1
    try:
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)  # which a service manager or a terminal sends to everybody
        _let_go({2, its.fileno()})
        memory.tell_allocator(memory.WRITING_OCTETS)
        _serve(its, Database(url))
        code = 0
    except BaseException as error:
        log.failure("writing process", error)
    finally:
        os._exit(code)


def _let_go(kept: set[int]) -> None:
    """Have no part in what the parent has open: a port, say, that is to be free when that ends.

    The numbers stay taken, so that no object of the parent's that is dropped here closes a file of ours.
    """
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for each in map(int, os.listdir("/proc/self/fd")):
        if each not in kept | {nothing}:
            os.dup2(nothing, each, inheritable=False)


# -- in the process that writes --------------------------------------------------------------------


def _serve(connection: socket.socket, database: Database) -> None:
    batches = Batches(database)
    incoming = _Incoming(connection)
    while batch := incoming.batch():
        report = batches.write(batch)
        incoming.close_spools()
        try:
            connection.sendall(frames.of_report(report))
        except OSError:  # nobody is there any more
            break
        batches.tidy()
    batches.close()


class _Incoming:
    """What comes, batch by batch."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._read = bytearray()
        self._descriptors: list[int] = []  # which have come, of frames that have not
        self._spools: list[Spool] = []  # of the batch

    def batch(self) -> list[Task]:
        """Wait for the next one; none: the parent has ended."""
        while (taken := frames.taken_out(self._read)) is None:
            try:
                octets, descriptors, flags, _ = socket.recv_fds(
                    self._connection, _READ_OCTETS, frames.DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
                )
            except ConnectionError:  # the parent has died, and not read all that it was told
                return []
            if flags & socket.MSG_CTRUNC:  # some are dropped, and what comes next is not to be taken for them
                raise OSError(errno.EMFILE, "not all descriptors of a batch have come")
            if not octets:
                return []
            self._read += octets
            self._descriptors += descriptors
        frame, count = taken
        descriptors, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        batch, self._spools = frames.batch_of(frame, descriptors)
        return batch

    def close_spools(self) -> None:
        """The batch is done: close what has come with it."""
        for spool in self._spools:
            spool.close()
        self._spools.clear()


# -- in the process that reads ---------------------------------------------------------------------


class WritingHand:
    """The way from a Writer to the process that writes for it; belongs to the loop."""

    def __init__(self, process: WritingProcess, writer: Writer) -> None:
        self._process = process
        self._connection = process.connection
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[frames.Frame] = deque()
        self._read = bytearray()
        self._loop.add_reader(self._connection, self._hear)

    def take(self, batch: Sequence[Task]) -> None:
        """Write these. Raises StoreUnavailable where there is no memory or descriptor for that."""
        self._unsent.append(frames.of_batch(batch))
        self._send()

    def _send(self) -> None:
        while self._unsent:
            frame = self._unsent.popleft()
            try:
                sent = socket.send_fds(self._connection, [frame.octets], frame.descriptors)
            except BlockingIOError:
                self._unsent.appendleft(frame)
                self._loop.add_writer(self._connection, self._send)
                return
            except OSError as error:
                self._unsent.appendleft(frame)
                self._give_up(error)
                break
            frame.close()
            if sent < len(frame.octets):
                self._unsent.appendleft(frames.Frame(frame.octets[sent:], ()))
        self._loop.remove_writer(self._connection)

    def _give_up(self, error: OSError) -> None:
        """Send nothing more: the report of what is behind a frame that is missing would be taken for its own.

        What was reported before is heard still, and then the end.
        """
        if error.errno not in _DIED:
            log.failure("writing process", error)
        self._forget_unsent()
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _forget_unsent(self) -> None:
        while self._unsent:
            self._unsent.popleft().close()

    def _hear(self) -> None:
        try:
            octets = self._connection.recv(_READ_OCTETS)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets:
            self._loop.remove_reader(self._connection)
            log.event("writing process died", level=logging.ERROR, pid=self._process.pid)
            self._writer.lose("the process that writes has died, and this one is about to start again")
            return
        self._read += octets
        while taken := frames.taken_out(self._read):
            self._writer.report(frames.report_of(taken[0]))

    async def close(self) -> None:
        """Let the process end, and wait for that."""
        self._loop.remove_reader(self._connection)
        self._loop.remove_writer(self._connection)
        self._forget_unsent()
        code = await asyncio.to_thread(self._process.end)
        if code:  # it was not told to
            how = signal.strsignal(-code) if code < 0 else f"exit code {code}"
            log.event("writing process ended", level=logging.ERROR, pid=self._process.pid, how=how)
