"""Group commit: one thread writes, and one COMMIT serves everyone who waits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import Connection

from mailstack.errors import StoreBusy, StoreContended, StoreUnavailable, Temporary
from mailstack.store.checkpoint import Checkpointer
from mailstack.store.counts import Commits
from mailstack.store.engine import Database
from mailstack.store.outcomes import Outcome, deliver

Job = TypeVar("Job")
Result = TypeVar("Result")
Work = Callable[[Connection, Sequence[Job]], Sequence[Result]]
"""Set-wise work: all jobs of its kind in a batch at once, a result for each, in their order."""

QUEUE_OCTETS: Final = 64 * 1024 * 1024
"""How much content may wait in memory before new jobs are refused with StoreBusy."""

BATCH_OCTETS: Final = 4 * 1024 * 1024
"""A COMMIT costs little beside what so much content does, and the next messages come in meanwhile.

What a batch writes also has to fit into the pages that SQLite keeps in memory, or is written page by page.
"""

BATCH_JOBS: Final = 1000

GATHER_SECONDS: Final = 0.002
"""How long a batch waits for those who are about to hand over; about what a commit of their own takes.

A quarter of that is too little where they are many: each has its turn on a loop that is busy with the
others, so batches leave without them, and both threads spend their time on commits and hand-overs.
"""

_CONTENDED_SECONDS: Final = 0.05  # PostgreSQL waits 20 times as long before it looks for a deadlock


class _Waiting(NamedTuple):
    work: Work[Any, Any]
    job: Any
    octets: int
    future: asyncio.Future[Any]


class Writer:
    """Owns the writer thread. `write` is called on the event loop, the work runs on the thread.

    A job whose caller has gone away is still done: what was handed over is never half done.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._checkpointer = Checkpointer(database) if database.is_sqlite else None
        self._loop = asyncio.get_running_loop()
        self._asked: list[_Waiting] = []  # in this turn of the loop
        self._asked_octets = 0
        self._queue: deque[_Waiting] = deque()
        self._queue_octets = 0
        self._something_to_do = threading.Condition()
        self._gathering = False
        self._closing = False
        self.coming: set[object] = set()
        """Who is about to hand a job over: a batch waits for them, for a moment and only once.

        Whoever puts itself in takes itself out, just before it hands over or when nothing will come.
        """
        self.commits = Commits()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    async def write(self, work: Work[Job, Result], job: Job, *, octets: int = 0) -> Result:
        """Hand one job over and wait until it is committed and synced.

        `octets` is the memory that the job holds while it waits. Raises StoreBusy when too much
        waits already, StoreUnavailable when the database refuses, and whatever the work raises.
        """
        future: asyncio.Future[Result] = self._loop.create_future()
        if self._closing:
            raise StoreUnavailable("the server is stopping")
        jobs, waiting = self.waiting
        if jobs and waiting + octets > QUEUE_OCTETS:
            raise StoreBusy("too much mail is waiting for the disk")
        if not self._asked:  # the thread is woken for all that is asked in this turn of the loop
            self._loop.call_soon(self._hand_over)
        self._asked.append(_Waiting(work, job, octets, future))
        self._asked_octets += octets
        return await future

    def _hand_over(self) -> None:
        with self._something_to_do:
            self._queue.extend(self._asked)
            self._queue_octets += self._asked_octets
            if not (self._gathering and self.coming):
                self._something_to_do.notify()
        self._asked.clear()
        self._asked_octets = 0

    @property
    def waiting(self) -> tuple[int, int]:
        """How many jobs wait, and how much memory they hold."""
        return len(self._asked) + len(self._queue), self._asked_octets + self._queue_octets

    async def close(self) -> None:
        """Do what waits, then end the thread."""
        self._hand_over()
        with self._something_to_do:
            self._closing = True
            self._something_to_do.notify()
        await asyncio.to_thread(self._thread.join)
        if self._checkpointer is not None:
            await asyncio.to_thread(self._checkpointer.close)
        await asyncio.sleep(0)  # the last outcomes are called in before we return

    # -- on the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        while batch := self._next_batch():
            began = time.monotonic()
            outcomes = self._outcomes(batch)
            self.commits.add(len(batch), time.monotonic() - began)
            # One wake-up of the loop for the batch, not one for each job.
            self._loop.call_soon_threadsafe(deliver, outcomes)
            if self._checkpointer is not None:
                self._checkpointer.after_commit()

    def _next_batch(self) -> list[_Waiting]:
        """What waits, in order, up to the bounds of a batch; empty when there is nothing left to do ever."""
        with self._something_to_do:
            while not self._queue and not self._closing:
                self._something_to_do.wait()
            self._gather()
            batch: list[_Waiting] = []
            octets = 0
            while self._queue and len(batch) < BATCH_JOBS:
                if batch and octets + self._queue[0].octets > BATCH_OCTETS:
                    break
                batch.append(self._queue.popleft())
                octets += batch[-1].octets
            self._queue_octets -= octets
            return batch

    def _gather(self) -> None:
        """Let the batch become whole: a commit costs much, one message more in it little.

        Who has not come in time is slow, and no later batch waits for it.
        """
        deadline = time.monotonic() + GATHER_SECONDS
        self._gathering = True
        while self.coming and not self._closing:
            if not self._something_to_do.wait(max(0.0, deadline - time.monotonic())):
                self.coming.clear()
        self._gathering = False

    def _outcomes(self, batch: list[_Waiting], tries: int = 3) -> list[Outcome]:
        began = ran = False
        try:
            with self._database.writing() as connection:
                began = True
                outcomes = [
                    Outcome(waiting.future, result, None)
                    for work, group in _grouped(batch)
                    for waiting, result in zip(
                        group, work(connection, [waiting.job for waiting in group]), strict=True
                    )
                ]
                ran = True
        except Exception as error:
            if began and not ran and isinstance(error, StoreContended) and tries > 1:
                # Another host's batch wanted the same maildrops in another order: it has them once it has
                # woken up, and on a busy machine that may be after we have locked them again.
                time.sleep(_CONTENDED_SECONDS)
                return self._outcomes(batch, tries - 1)
            if began and not ran and len(batch) > 1:
                # One job's statement failed. Nothing is committed, so each may have its own try.
                return list(self._one_by_one(batch))
            # No transaction at all, or a COMMIT of which nobody knows how it ended: doing the jobs
            # again could store them twice. The senders are told to come back.
            return [Outcome(waiting.future, None, error) for waiting in batch]
        return outcomes

    def _one_by_one(self, batch: Sequence[_Waiting]) -> Iterator[Outcome]:
        for number, waiting in enumerate(batch, 1):
            (outcome,) = self._outcomes([waiting])
            yield outcome
            if isinstance(outcome.error, StoreUnavailable) and not self._database_answers():
                # Each of the others would wait for it as long as this one did, one after the other.
                yield from (Outcome(each.future, None, outcome.error) for each in batch[number:])
                return

    def _database_answers(self) -> bool:
        try:
            with self._database.writing():
                return True
        except Temporary:
            return False


def _grouped(batch: list[_Waiting]) -> Iterator[tuple[Work[Any, Any], list[_Waiting]]]:
    groups: dict[Work[Any, Any], list[_Waiting]] = {}
    for waiting in batch:
        groups.setdefault(waiting.work, []).append(waiting)
    yield from groups.items()
