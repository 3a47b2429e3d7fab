"""Group reading: what waits together is read in one go, and the loop is woken once for all of it.

A hand-over between two threads of Python costs more than a look at one row. So a reader takes all
that waits, as the writer does, in place of one job. And threads that read at the same time cost more
than one that reads everything, for each has to wait for the interpreter at every row: the second one
begins when the first gets no further, with something slow that others need not wait for.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import Connection

from mailstack.errors import StoreCutOff, StoreUnavailable
from mailstack.store.engine import Database, Reading
from mailstack.store.outcomes import Outcome, deliver

R = TypeVar("R")

_THREADS: Final = 2
_AT_ONCE: Final = 32
_PATIENCE_SECONDS: Final = 0.002
"""A slow job does not keep back for longer what was read before it."""

_STUCK_SECONDS: Final = 0.02
"""What waits behind a slow job does so for twice this at most; then another thread takes it."""


class _Waiting(NamedTuple):
    number: int  # in the order in which they were asked
    work: Callable[[Connection], Any]
    future: asyncio.Future[Any]
    cut_off: bool = False  # the connection broke when it was read the first time


class Readers:
    """Owns the reading threads; `read` is called on the event loop, the work runs on a thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._asked: list[_Waiting] = []  # in this turn of the loop
        self._numbers = count(1)
        self._queue: deque[_Waiting] = deque()
        self._something_to_do = threading.Condition()
        self._idle = 0  # threads that wait and have not been notified
        self._look: asyncio.TimerHandle | None = None
        self._next_seen = 0  # the number of the job that waited longest when that was looked at
        self._closing = False
        self._threads = [
            threading.Thread(target=self._run, name=f"reader-{number}", daemon=True)
            for number in range(_THREADS)
        ]
        for thread in self._threads:
            thread.start()

    async def read(self, work: Callable[[Connection], R]) -> R:
        """What `work` returns or raises, in a read transaction that begins after this call.

        Raises StoreUnavailable when the database refuses.
        """
        if self._closing:
            raise StoreUnavailable("the server is stopping")
        future: asyncio.Future[R] = self._loop.create_future()
        if not self._asked:  # a thread is woken for all that is asked in this turn
            self._loop.call_soon(self._hand_over)
        self._asked.append(_Waiting(next(self._numbers), work, future))
        return await future

    def _hand_over(self) -> None:
        with self._something_to_do:
            self._queue.extend(self._asked)
            if self._idle == _THREADS:
                self._wake_one()
            self._look_again()
        self._asked.clear()

    def _look_again(self) -> None:
        """See in a while whether something still waits that waits now, and a thread is idle."""
        if self._look is None and self._queue and self._idle:
            self._next_seen = self._queue[0].number
            self._look = self._loop.call_later(_STUCK_SECONDS, self._wake_another)

    def _wake_another(self) -> None:
        self._look = None
        with self._something_to_do:
            if self._queue and self._queue[0].number == self._next_seen:
                self._wake_one()
            self._look_again()

    def _wake_one(self) -> None:
        if self._idle:
            self._idle -= 1
            self._something_to_do.notify()

    async def close(self) -> None:
        """Read what waits, then end the threads."""
        self._hand_over()
        with self._something_to_do:
            self._closing = True
            self._something_to_do.notify_all()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        if self._look is not None:
            self._look.cancel()
        await asyncio.sleep(0)  # the last outcomes are called in before we return

    # -- on the threads --------------------------------------------------------------------------

    def _run(self) -> None:
        reading = Reading(self._database)
        while last := self._last():
            self._read(reading, last)
        reading.close()

    def _last(self) -> int:
        """The number of the last job that waits now, once there is one; 0 when nothing is left to do ever."""
        with self._something_to_do:
            while not self._queue and not self._closing:
                self._idle += 1
                self._something_to_do.wait()
            return self._queue[-1].number if self._queue else 0

    def _next(self, last: int) -> _Waiting | None:
        """The next job up to that number: one that was asked later needs a later transaction."""
        with self._something_to_do:
            return self._queue.popleft() if self._queue and self._queue[0].number <= last else None

    def _read(self, reading: Reading, last: int) -> None:
        """Read in one transaction, up to that job or the first failure, which ends it."""
        outcomes: list[Outcome] = []
        waiting, since, began = None, time.monotonic(), False
        try:
            with reading.transaction() as connection:
                began = True
                for _ in range(_AT_ONCE):
                    if (waiting := self._next(last)) is None:
                        break
                    if outcomes and time.monotonic() - since > _PATIENCE_SECONDS:
                        self._tell(outcomes)
                        outcomes, since = [], time.monotonic()
                    outcomes.append(Outcome(waiting.future, waiting.work(connection)))
        except BaseException as error:
            # Of one job; or there is no database, which each of the others would wait for as long.
            while not began and (another := self._next(last)):
                outcomes.append(Outcome(another.future, error))
            if began and waiting and isinstance(error, StoreCutOff) and not waiting.cut_off:
                # The server may have been started again; a read can be done twice.
                with self._something_to_do:
                    self._queue.appendleft(waiting._replace(cut_off=True))
            elif waiting is not None:
                outcomes.append(Outcome(waiting.future, error))
        self._tell(outcomes)

    def _tell(self, outcomes: list[Outcome]) -> None:
        self._loop.call_soon_threadsafe(deliver, outcomes)
