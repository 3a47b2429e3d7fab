"""Group commit as the event loop sees it: who hands a job over waits until it is committed and synced.

What waits is written by somebody else, batch by batch, while the loop hears what comes meanwhile: the next
batch is there when the one before it is done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple, Protocol

from mailstack.errors import StoreBusy, StoreUnavailable
from mailstack.store.batches import Job, Report, Result, Task, Work
from mailstack.store.counts import Commits
from mailstack.store.outcomes import settle

QUEUE_OCTETS: Final = 64 * 1024 * 1024
"""How much content may wait in memory before new jobs are refused with StoreBusy."""

BATCH_OCTETS: Final = 4 * 1024 * 1024
"""A COMMIT costs little beside what so much content does, and the next messages come in meanwhile.

What a batch writes also has to fit into the pages that SQLite keeps in memory, or is written page by page.
"""

BATCH_JOBS: Final = 50
"""More in one COMMIT gain nothing, and the first of them would wait for the last."""

SLOW_SECONDS: Final = 0.005
"""A batch that took longer is one of a slow disk, where a commit costs more than to wait for somebody."""

UNDER_WAY: Final = 2
"""How many batches are handed over: one that is written, and one that its writer need not wait for."""

GATHER_SECONDS: Final = 0.002
"""How long a batch waits for those who are about to hand over; about what a commit of their own takes.

A quarter of that is too little where they are many: each has its turn on a loop that is busy with the
others, and batches leave without them.
"""


class Hand(Protocol):
    """Who writes: another thread or another process, which is at it while the loop reads what comes next."""

    def take(self, batch: Sequence[Task]) -> None:
        """Write these; the Writer is told by `report`, later. Raises where it cannot even begin."""
        ...

    async def close(self) -> None:
        """End; nothing is under way any more."""
        ...


class _Waiting(NamedTuple):
    task: Task
    future: asyncio.Future[Any]


class Writer:
    """What one event loop has to be written, and who waits for it.

    A job whose caller has gone away is still done: what was handed over is never half done.
    """

    def __init__(self, hand: Callable[[Writer], Hand]) -> None:
        """`hand` makes the one who writes; it is given this, to call `report` and `lose` on the loop."""
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Waiting] = deque()
        self._under_way: deque[list[_Waiting]] = deque()
        self._turn_at = 0.0  # since when the first of those has nothing before it
        self._seconds = 0.0  # for how long the last one was written
        self._lately = 0  # how many had handed something over when that was done
        self._octets = 0  # of both
        self._queued_octets = 0
        self._next: asyncio.Handle | None = None  # the next batch, where it is due
        self._gathering = False
        self._unavailable: str | None = None
        self._closed = False
        self._emptied: asyncio.Future[None] | None = None  # for who waits until nothing waits
        self.coming: set[object] = set()
        """Who is about to hand a job over: a batch waits for them, for a moment and only once.

        Whoever puts itself in takes itself out, just before it hands over or when nothing will come.
        """
        self.commits = Commits()
        self.on_lost: list[Callable[[], None]] = []
        """Called when nothing can be written any more."""
        self._hand = hand(self)

    async def write(self, work: Work[Job, Result], job: Job, *, octets: int = 0) -> Result:
        """Hand one job over and wait until it is committed and synced.

        `octets` is the memory that the job holds while it waits. Raises StoreBusy when too much
        waits already, StoreUnavailable when the database refuses, and whatever the work raises.
        """
        if self._unavailable is not None:
            raise StoreUnavailable(self._unavailable)
        if self._octets and self._octets + octets > QUEUE_OCTETS:
            raise StoreBusy("too much mail is waiting for the disk")
        future: asyncio.Future[Result] = self._loop.create_future()
        self._queue.append(_Waiting(Task(work, job, octets), future))
        self._octets += octets
        self._queued_octets += octets
        if self._gathering and self._is_whole():
            self._gather_no_longer()
        self._begin_soon()
        return await future

    @property
    def waiting(self) -> tuple[int, int]:
        """How many jobs are not written yet, and how much memory they hold."""
        return len(self._queue) + sum(map(len, self._under_way)), self._octets

    @property
    def writing_seconds(self) -> float:
        """For how long the batch has been written that is first; 0 where there is none."""
        return self._loop.time() - self._turn_at if self._under_way else 0.0

    # -- batches -------------------------------------------------------------------------------------

    def _begin_soon(self) -> None:
        """With all that is asked in this turn of the loop, where that is enough."""
        if self._next is None and len(self._under_way) < UNDER_WAY:
            self._next = self._loop.call_soon(self._gather)

    def _gather(self) -> None:
        """Let the batch become whole: a commit costs much, one message more in it little."""
        self._next = None
        if self._is_whole() or self._unavailable is not None:
            self._begin()
        elif not self._under_way:  # or else there is time until that is done
            self._gathering = True
            self._next = self._loop.call_later(GATHER_SECONDS, self._begin_without)

    def _gather_no_longer(self) -> None:
        if self._gathering and self._next is not None:
            self._next.cancel()
            self._gathering = False
            self._next = self._loop.call_soon(self._begin)

    def _is_whole(self) -> bool:
        """Whether nobody is missing for whom it is worth while to wait.

        Two halves are fastest where a commit takes no longer than what the loop does meanwhile: one sends
        while the other's mail is written. Where it takes long, each half would wait for the other's commit,
        and everybody who was here lately is awaited.
        """
        slow = self._seconds > SLOW_SECONDS
        if self._under_way:
            wanted = BATCH_JOBS if slow else self._lately - len(self._under_way[0])
        else:
            wanted = self._lately if slow else 0
        return (
            len(self._queue) >= min(max(wanted, len(self.coming)), BATCH_JOBS)
            or self._queued_octets >= BATCH_OCTETS
        )

    def _begin_without(self) -> None:
        """Who has not come in time is slow, and no later batch waits for it."""
        self.coming.clear()
        self._begin()

    def _begin(self) -> None:
        self._next, self._gathering = None, False
        if self._queue:
            self._hand_over(self._next_batch())
        self._go_on()

    def _hand_over(self, batch: list[_Waiting]) -> None:
        try:
            self._hand.take([waiting.task for waiting in batch])
        except Exception as error:
            if len(batch) == 1:
                self._wake(batch[0], error)
                return
            for waiting in batch:  # one is guilty
                self._hand_over([waiting])
        else:
            if not self._under_way:
                self._turn_at = self._loop.time()
            self._under_way.append(batch)

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        octets = 0
        while self._queue and len(batch) < BATCH_JOBS:
            octets += self._queue[0].task.octets
            if batch and octets > BATCH_OCTETS:
                break
            batch.append(self._queue.popleft())
            self._queued_octets -= batch[-1].task.octets
        return batch

    def report(self, report: Report) -> None:
        """The oldest batch is done: wake everybody who waits for it. On the loop."""
        self.commits.add(len(report.done), report.seconds)
        for waiting, done in zip(self._under_way.popleft(), report.done, strict=True):
            self._wake(waiting, done)
        self._turn_at = self._loop.time()
        self._seconds = report.seconds
        self._lately = len(report.done) + sum(map(len, self._under_way)) + len(self._queue)
        self._go_on()

    def lose(self, why: str) -> None:
        """Nothing is written any more: tell everybody who waits, and who comes later. On the loop."""
        self._unavailable = why
        for waiting in (*chain.from_iterable(self._under_way), *self._queue):
            self._wake(waiting, StoreUnavailable(why))
        self._under_way.clear()
        self._queue.clear()
        self._queued_octets = 0
        self._go_on()
        for tell in self.on_lost:
            tell()

    def _wake(self, waiting: _Waiting, done: Any) -> None:
        self._octets -= waiting.task.octets
        settle(waiting.future, done)

    def _go_on(self) -> None:
        if self._queue:
            self._begin_soon()
        elif not self._under_way and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    async def close(self) -> None:
        """Do what waits, then end; closing again does nothing."""
        if self._unavailable is None:
            self._unavailable = "the server is stopping"
        self._gather_no_longer()
        if self._queue or self._under_way:
            self._emptied = self._emptied or self._loop.create_future()
            await self._emptied
        if not self._closed:
            self._closed = True
            await self._hand.close()
