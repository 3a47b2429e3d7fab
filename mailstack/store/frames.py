"""What goes between the process that reads and the one that writes: a frame for each batch or report.

Small content is in the frame, what is larger in files, be they in memory or on a disk, whose descriptors go
along (unix(7), SCM_RIGHTS): a pipe would take it in pieces, with a change of processes for each.
"""

from __future__ import annotations

import errno
import io
import os
import pickle
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from mailstack import log
from mailstack.errors import MailstackError, StoreUnavailable
from mailstack.mail.spool import Spool
from mailstack.store.batches import Report, Task
from mailstack.store.events import Row
from mailstack.store.messages import Deposit, Recipient

_HEADER: Final = struct.Struct("=II")
"""The octets behind it, and the descriptors that come with it."""

DESCRIPTORS: Final = 253
"""What the kernel takes with one frame; what a batch has is bounded by its jobs and their memory."""

_SMALL_OCTETS: Final = 16 * 1024
"""Content below this size is in a frame; a file of memory costs less for what is larger."""

_Lent = tuple[Sequence[int], bytes]
"""A spool as it is sent: the octets in each file whose descriptor comes along, and its last part."""


class Frame(NamedTuple):
    """What is to be sent: its octets, or what is left of them, and descriptors that are the frame's own."""

    octets: memoryview
    descriptors: Sequence[int]

    def close(self) -> None:
        """Close the descriptors: the other side has its own, or shall have none."""
        _close(self.descriptors)


def _close(descriptors: Sequence[int]) -> None:
    for each in descriptors:
        os.close(each)


def taken_out(read: bytearray) -> tuple[bytes, int] | None:
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


# -- a batch ---------------------------------------------------------------------------------------


def of_batch(batch: Sequence[Task]) -> Frame:
    """The batch as it is sent. Where it cannot be, StoreUnavailable, and no descriptor is left behind."""
    descriptors: list[int] = []
    try:
        octets = _written(batch, descriptors)
        if len(descriptors) > DESCRIPTORS:
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
    except BaseException as error:
        _close(descriptors)
        if isinstance(error, OSError):
            raise StoreUnavailable(f"mail cannot be handed over to be written: {error.strerror}") from error
        raise
    return Frame(octets, descriptors)


def batch_of(frame: bytes, descriptors: Sequence[int]) -> tuple[list[Task], list[Spool]]:
    """The batch that was sent, and the spools in it, which are to be closed once it is written."""
    unused, spools = iter(descriptors), list[Spool]()
    tasks = [
        Task(work, _deposit(job, unused, spools) if flat else job, octets)
        for work, job, octets, flat in pickle.loads(frame)
    ]
    return tasks, spools


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


def _deposit(values: tuple[Any, ...], descriptors: Iterator[int], spools: list[Spool]) -> Deposit:
    """What was `_flat` before it was sent; adds its spools."""
    mail_id, reverse_path, lent, dotted, recipients, at, surrogate, event = values
    return Deposit(
        mail_id,
        reverse_path,
        _borrowed(lent, descriptors, spools),
        dotted,
        list(map(Recipient._make, recipients)),
        at,
        surrogate and _borrowed(surrogate, descriptors, spools),
        event and Row._make(event),
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


def _borrowed(lent: _Lent, descriptors: Iterator[int], spools: list[Spool]) -> Spool:
    lengths, last = lent
    spools.append(Spool.borrowed([(next(descriptors), octets) for octets in lengths], last))
    return spools[-1]


# -- its report ------------------------------------------------------------------------------------


def of_report(report: Report) -> bytes:
    """The report as it is sent."""
    written = pickle.dumps(([_portable(done) for done in report.done], report.seconds), protocol=5)
    return _HEADER.pack(len(written), 0) + written


def report_of(frame: bytes) -> Report:
    """The report that was sent."""
    return Report(*pickle.loads(frame))


def _portable(done: Any) -> Any:
    """The same; an error as one that can be told in another process."""
    if not isinstance(done, BaseException):
        return done
    if not isinstance(done, MailstackError):
        log.failure("writing", done)  # there, nobody knows where it came from
    try:
        pickle.loads(pickle.dumps(done))
    except Exception:
        return RuntimeError(f"{type(done).__name__}: {done}")
    return done
