"""A process that writes, so that the loop of the one it was forked from reads what comes next meanwhile.

Two threads of one process take turns: only one of them is in Python at a time, and with a busy loop beside
it, a batch took three times as long as alone. Batches go to this process by a socket, and a report comes back
for each. Small content is in them, what is larger in files, be they in memory or on a disk, whose descriptors
go along (unix(7), SCM_RIGHTS): a pipe would take it in pieces, with a change of processes for each.

It ends when the socket does, however its parent has ended. What waits then is not written: nobody would be
told, and who is told nothing sends it again.
"""

from __future__ import annotations

import asyncio
import errno
import io
import logging
import os
import pickle
import signal
import socket
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from mailstack import log, memory
from mailstack.errors import MailstackError, StoreUnavailable
from mailstack.mail.spool import Spool
from mailstack.store.batches import Batches, Report, Task
from mailstack.store.engine import Database
from mailstack.store.events import Row
from mailstack.store.messages import Deposit, Recipient
from mailstack.store.writer import Writer

_HEADER: Final = struct.Struct("=II")
"""Of a frame: the octets behind it, and the descriptors that come with it."""

_DESCRIPTORS: Final = 253
"""What the kernel takes with one frame; what a batch has is bounded by its jobs and their memory."""

_READ_OCTETS: Final = 64 * 1024
_SMALL_OCTETS: Final = 16 * 1024
"""Content below this size is in a frame; a file of memory costs less for what is larger."""

_DIED: Final = frozenset({errno.EPIPE, errno.ECONNRESET})

_Lent = tuple[Sequence[int], bytes]
"""A spool as it is sent: the octets in each file whose descriptor comes along, and its last part."""


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
        written = pickle.dumps(([_portable(*done) for done in report.done], report.seconds), protocol=5)
        try:
            connection.sendall(_HEADER.pack(len(written), 0) + written)
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
        while (frame := _taken_out(self._read)) is None:
            try:
                octets, descriptors, flags, _ = socket.recv_fds(
                    self._connection, _READ_OCTETS, _DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
                )
            except ConnectionError:  # the parent has died, and not read all that it was told
                return []
            if flags & socket.MSG_CTRUNC:  # some are dropped, and what comes next is not to be taken for them
                raise OSError(errno.EMFILE, "not all descriptors of a batch have come")
            if not octets:
                return []
            self._read += octets
            self._descriptors += descriptors
        written, count = frame
        descriptors, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        return self._tasks(written, iter(descriptors))

    def _tasks(self, written: bytes, descriptors: Iterator[int]) -> list[Task]:
        return [
            Task(work, self._deposit(job, descriptors) if flat else job, octets)
            for work, job, octets, flat in pickle.loads(written)
        ]

    def _deposit(self, values: tuple[Any, ...], descriptors: Iterator[int]) -> Deposit:
        """What was `_flat` before it was sent."""
        mail_id, reverse_path, lent, dotted, recipients, at, surrogate, event = values
        return Deposit(
            mail_id,
            reverse_path,
            self._borrowed(lent, descriptors),
            dotted,
            list(map(Recipient._make, recipients)),
            at,
            surrogate and self._borrowed(surrogate, descriptors),
            event and Row._make(event),
        )

    def _borrowed(self, lent: _Lent, descriptors: Iterator[int]) -> Spool:
        lengths, last = lent
        spool = Spool.borrowed([(next(descriptors), octets) for octets in lengths], last)
        self._spools.append(spool)
        return spool

    def close_spools(self) -> None:
        """The batch is done: close what has come with it."""
        for spool in self._spools:
            spool.close()
        self._spools.clear()


def _portable(result: Any, error: BaseException | None) -> tuple[Any, BaseException | None]:
    """The same, with an error that can be told in another process."""
    if error is None:
        return result, None
    if not isinstance(error, MailstackError):
        log.failure("writing", error)  # there, nobody knows where it came from
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    return None, error


# -- in the process that reads ---------------------------------------------------------------------


class _Frame(NamedTuple):
    octets: memoryview
    descriptors: Sequence[int]


class WritingHand:
    """The way from a Writer to the process that writes for it; belongs to the loop."""

    def __init__(self, process: WritingProcess, writer: Writer) -> None:
        self._process = process
        self._connection = process.connection
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[_Frame] = deque()
        self._read = bytearray()
        self._loop.add_reader(self._connection, self._hear)

    def take(self, batch: Sequence[Task]) -> None:
        """Write these. Raises StoreUnavailable where there is no memory or descriptor for that."""
        self._unsent.append(_frame(batch))
        self._send()

    def _send(self) -> None:
        while self._unsent:
            octets, descriptors = self._unsent.popleft()
            try:
                sent = socket.send_fds(self._connection, [octets], descriptors)
            except BlockingIOError:
                self._unsent.appendleft(_Frame(octets, descriptors))
                self._loop.add_writer(self._connection, self._send)
                return
            except OSError as error:
                self._unsent.appendleft(_Frame(octets, descriptors))
                self._give_up(error)
                break
            _close(descriptors)
            if sent < len(octets):
                self._unsent.appendleft(_Frame(octets[sent:], ()))
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
            _close(self._unsent.popleft().descriptors)

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
        while frame := _taken_out(self._read):
            self._writer.report(Report(*pickle.loads(frame[0])))

    async def close(self) -> None:
        """Let the process end, and wait for that."""
        self._loop.remove_reader(self._connection)
        self._loop.remove_writer(self._connection)
        self._forget_unsent()
        code = await asyncio.to_thread(self._process.end)
        if code:  # it was not told to
            how = signal.strsignal(-code) if code < 0 else f"exit code {code}"
            log.event("writing process ended", level=logging.ERROR, pid=self._process.pid, how=how)


def _frame(batch: Sequence[Task]) -> _Frame:
    """The batch as it is sent. Where it cannot be, no descriptor is left behind."""
    descriptors: list[int] = []
    try:
        octets = _written(batch, descriptors)
        if len(descriptors) > _DESCRIPTORS:
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
    except BaseException as error:
        _close(descriptors)
        if isinstance(error, OSError):
            raise StoreUnavailable(f"mail cannot be handed over to be written: {error.strerror}") from error
        raise
    return _Frame(octets, descriptors)


def _close(descriptors: Sequence[int]) -> None:
    for each in descriptors:
        os.close(each)


def _written(batch: Sequence[Task], descriptors: list[int]) -> memoryview:
    """The octets of a frame; adds the descriptors that have to come with them."""
    file = io.BytesIO()
    file.write(bytes(_HEADER.size))
    tasks = [
        (work, _flat(job, descriptors), octets, True)
        if isinstance(job, Deposit)
        else (work, job, octets, False)
        for work, job, octets in batch
    ]
    pickle.dump(tasks, file, protocol=5)
    octets = file.getbuffer()
    _HEADER.pack_into(octets, 0, len(octets) - _HEADER.size, len(descriptors))
    return octets


def _flat(deposit: Deposit, descriptors: list[int]) -> tuple[Any, ...]:
    """A deposit, as nearly all jobs are, by plain values: to send classes costs three times as much."""
    mail_id, reverse_path, spool, dotted, recipients, at, surrogate, event = deposit
    return (
        mail_id,
        reverse_path,
        _lent(spool, descriptors),
        dotted,
        list(map(tuple, recipients)),
        at,
        surrogate and _lent(surrogate, descriptors),
        event and tuple(event),
    )


def _lent(spool: Spool, descriptors: list[int]) -> _Lent:
    files, last = spool.lent()
    lengths = [octets for _, octets in files]
    for descriptor, _ in files:
        descriptors.append(os.dup(descriptor))  # they may be closed before
    if (rest := sum(map(len, last))) < _SMALL_OCTETS:
        return lengths, b"".join(last)
    try:
        descriptors.append(os.memfd_create("spool"))
    except OSError:  # forbidden, say, or there is no descriptor left
        return lengths, b"".join(last)
    os.writev(descriptors[-1], last)
    return [*lengths, rest], b""


# -- in both ---------------------------------------------------------------------------------------


def _taken_out(read: bytearray) -> tuple[bytes, int] | None:
    """The next frame, with how many descriptors come with it; None where it is not whole yet."""
    if len(read) < _HEADER.size:
        return None
    octets, descriptors = _HEADER.unpack_from(read)
    end = _HEADER.size + octets
    if len(read) < end:
        return None
    frame = bytes(memoryview(read)[_HEADER.size : end])
    del read[:end]
    return frame, descriptors
