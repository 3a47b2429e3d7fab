"""How many messages a second group commit makes of a disk, in a time that is not this machine's."""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

import pytest

from mailstack.store.batches import Report, Task
from mailstack.store.writer import BATCH_JOBS, GATHER_SECONDS, Writer
from tests.support import virtual_time


class Box(NamedTuple):
    """Seconds that a box takes for things."""

    commit: float
    message: float  # to write one, beside its commit
    turnaround: float  # at most, from a reply to the next content
    loop: float  # of the loop for a message, one after the other


class Pace(NamedTuple):
    """What came of it."""

    per_second: float
    longest: float  # seconds from hand-over to reply


class Disk:
    """A hand that takes as long as it is told."""

    def __init__(self, writer: Writer, box: Box) -> None:
        self._writer, self._box = writer, box
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Sequence[Task]] = deque()

    def take(self, batch: Sequence[Task]) -> None:
        self._waiting.append(batch)
        if len(self._waiting) == 1:
            self._write()

    def _write(self) -> None:
        seconds = self._box.commit + self._box.message * len(self._waiting[0])
        self._loop.call_later(seconds, self._done, seconds)

    def _done(self, seconds: float) -> None:
        batch = self._waiting.popleft()
        if self._waiting:
            self._write()
        self._writer.report(Report([None] * len(batch), seconds))

    async def close(self) -> None:
        assert not self._waiting


async def _measured(senders: int, box: Box, each: int = 40) -> Pace:
    loop, chance, turn = asyncio.get_running_loop(), random.Random(senders), asyncio.Lock()
    writer = Writer(lambda writer: Disk(writer, box))
    took: list[float] = []

    async def send(name: int) -> None:
        for _ in range(each):
            await asyncio.sleep(chance.random() * box.turnaround * 2 / 3)
            writer.coming.add(name)
            await asyncio.sleep(chance.random() * box.turnaround / 3)
            async with turn:
                await asyncio.sleep(box.loop)
            writer.coming.discard(name)
            began = loop.time()
            await writer.write(lambda connection, jobs: [None for _ in jobs], None)
            took.append(loop.time() - began)

    await asyncio.gather(*(send(name) for name in range(senders)))
    per_second = len(took) / loop.time()
    await writer.close()
    return Pace(per_second, max(took))


FAST: Final = Box(commit=0.0004, message=0.00008, turnaround=0.0003, loop=0.00015)
FAST_50_KB: Final = Box(commit=0.0006, message=0.0002, turnaround=0.0006, loop=0.00027)
SLOW: Final = Box(commit=0.010, message=0.0001, turnaround=0.002, loop=0.0)
SLOWER: Final = SLOW._replace(commit=0.030)


@pytest.mark.parametrize(
    ("senders", "box", "per_second"),
    [
        (10, FAST, 5000),  # all in one batch, and then all at once: 3600
        (100, FAST, 6400),
        (10, FAST_50_KB, 2700),  # 2000
        (3, SLOW, 220),  # two halves that wait for each other: 150
        (10, SLOW, 700),  # 490
        (50, SLOW, 2500),  # 2000
        (10, SLOWER, 270),  # 170
    ],
)
def test_a_batch_waits_for_whom_it_is_worth_while(senders: int, box: Box, per_second: int) -> None:
    assert virtual_time.run(_measured(senders, box)).per_second > per_second


@pytest.mark.parametrize("box", [FAST, SLOW])
def test_nobody_who_is_alone_waits_for_others(box: Box) -> None:
    assert virtual_time.run(_measured(1, box)).longest == pytest.approx(box.commit + box.message)


@pytest.mark.parametrize("box", [FAST, SLOW, SLOWER, SLOW._replace(turnaround=0.5)])
@pytest.mark.parametrize("senders", [2, 7, 120])
def test_nobody_waits_for_more_than_what_was_there_before(senders: int, box: Box) -> None:
    # What is written, what is handed over already, and what stands in the queue, its own batch included.
    batches = 2 + math.ceil(senders / BATCH_JOBS)
    longest = virtual_time.run(_measured(senders, box)).longest
    assert longest <= batches * (box.commit + BATCH_JOBS * box.message) + GATHER_SECONDS + senders * box.loop
