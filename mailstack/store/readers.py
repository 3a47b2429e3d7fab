"""Group reading: what waits together is read in one go, and the loop is woken once for all of it.

A hand-over between two threads of Python costs more than a look at one row. So a reader takes its
share of what waits, as the writer does, in place of one job.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import Connection

from mailstack.errors import StoreUnavailable
from mailstack.store.engine import Database
from mailstack.store.outcomes import Outcome, deliver

R = TypeVar("R")

_THREADS: Final = 2
_AT_ONCE: Final = 32
_PATIENCE_SECONDS: Final = 0.002
"""A slow job does not keep back for longer what was read before it."""


class _Waiting(NamedTuple):
    work: Callable[[Connection], Any]
    future: asyncio.Future[Any]


class Readers:
    """Owns the reading threads; `read` is called on the event loop, the work runs on a thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._asked: list[_Waiting] = []  # in this turn of the loop
        self._queue: deque[_Waiting] = deque()
        self._something_to_do = threading.Condition()
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
        self._asked.append(_Waiting(work, future))
        return await future

    def _hand_over(self) -> None:
        with self._something_to_do:
            self._queue.extend(self._asked)
            self._something_to_do.notify(min(len(self._asked), _THREADS))
        self._asked.clear()

    async def close(self) -> None:
        """Read what waits, then end the threads."""
        self._hand_over()
        with self._something_to_do:
            self._closing = True
            self._something_to_do.notify_all()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        await asyncio.sleep(0)  # the last outcomes are called in before we return

    # -- on the threads --------------------------------------------------------------------------

    def _run(self) -> None:
        while batch := self._next_batch():
            while batch:
                batch = batch[self._read(batch) :]

    def _next_batch(self) -> list[_Waiting]:
        """This thread's share of what waits, in order; empty when there is nothing left to do ever."""
        with self._something_to_do:
            while not self._queue and not self._closing:
                self._something_to_do.wait()
            share = min(-(-len(self._queue) // _THREADS), _AT_ONCE)
            return [self._queue.popleft() for _ in range(share)]

    def _read(self, batch: Sequence[_Waiting]) -> int:
        """Read in one transaction, up to the first failure, which ends it; return how many are done."""
        outcomes: list[Outcome] = []
        done, since, began = 0, time.monotonic(), False
        try:
            with self._database.reading() as connection:
                began = True
                for waiting in batch:
                    if outcomes and time.monotonic() - since > _PATIENCE_SECONDS:
                        self._tell(outcomes)
                        outcomes, since = [], time.monotonic()
                    outcomes.append(Outcome(waiting.future, waiting.work(connection), None))
                    done += 1
        except BaseException as error:
            # Of one job; or there is no database, which each of the others would wait for as long.
            failed = batch[done : done + 1] if began else batch
            outcomes += [Outcome(waiting.future, None, error) for waiting in failed]
            done += len(failed)
        self._tell(outcomes)
        return done

    def _tell(self, outcomes: list[Outcome]) -> None:
        self._loop.call_soon_threadsafe(deliver, outcomes)
