"""Group commit: who waits is written together, and soon; and how much may wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy import Connection, insert

from mailstack.errors import StoreBusy, StoreUnavailable
from mailstack.store import writer as writer_module
from mailstack.store.tables import state
from tests.store.jobs import begun, commits_of, held_up, note, noted, outcomes
from tests.support.writing import writing


async def test_what_waits_is_committed_together(database):
    async with held_up(database) as (writer, commits):
        tasks = await begun(*(writer.write(note, f"job {n:02}") for n in range(50)))
    assert await outcomes(tasks) == [f"JOB {n:02}" for n in range(50)]
    assert noted(database) == [f"job {n:02}" for n in range(50)]
    assert len(commits) == 2, "one for the job that held the thread up, one for all others"


async def test_work_of_two_kinds_shares_a_commit_too(database):
    def other(connection: Connection, jobs: Sequence[int]) -> list[int]:
        connection.execute(insert(state), [{"name": f"other {n}", "value": 1} for n in jobs])
        return [n + 1 for n in jobs]

    async with held_up(database) as (writer, commits):
        tasks = await begun(writer.write(note, "a"), writer.write(other, 5), writer.write(note, "b"))
    assert await outcomes(tasks) == ["A", 6, "B"]
    assert noted(database) == ["a", "b", "other 5"]
    assert len(commits) == 2


async def test_a_batch_waits_for_half_of_those_who_are_about_to_hand_over(database, monkeypatch):
    monkeypatch.setattr(writer_module, "GATHER_SECONDS", 60)
    writer, commits = writing(database), commits_of(database)
    writer.coming.update(("b", "c", "d"))
    (first,) = await begun(writer.write(note, "a"))
    await asyncio.sleep(0)
    writer.coming.discard("b")
    assert not first.done()
    assert not commits
    (second,) = await begun(writer.write(note, "b"))
    assert await outcomes([first, second]) == ["A", "B"]
    assert len(commits) == 1
    await writer.close()


async def test_the_next_batch_is_handed_over_while_one_is_written(database):
    async with held_up(database) as (writer, commits):
        (second,) = await begun(writer.write(note, "second"))
        await asyncio.sleep(0)
        # Two are under way now, so that these wait for one of them, however many they are.
        later = []
        for n in range(3):
            later += await begun(writer.write(note, f"later {n}"))
            await asyncio.sleep(0)
    assert await outcomes([second, *later]) == ["SECOND", "LATER 0", "LATER 1", "LATER 2"]
    assert len(commits) == 1 + 1 + 1


async def test_who_does_not_come_in_time_is_waited_for_once(database, monkeypatch):
    monkeypatch.setattr(writer_module, "GATHER_SECONDS", 0.001)
    writer = writing(database)
    writer.coming.update(("slow", "slower"))
    assert await writer.write(note, "a") == "A"
    assert not writer.coming
    monkeypatch.setattr(writer_module, "GATHER_SECONDS", 60)
    assert await asyncio.wait_for(writer.write(note, "b"), 10) == "B"
    await writer.close()


@pytest.mark.parametrize(("bound", "most"), [("BATCH_JOBS", 3), ("BATCH_OCTETS", 3000)])
async def test_a_full_batch_waits_for_nobody(database, monkeypatch, bound, most):
    monkeypatch.setattr(writer_module, "GATHER_SECONDS", 60)
    monkeypatch.setattr(writer_module, bound, most)
    writer = writing(database)
    writer.coming.update(range(10))
    tasks = await begun(*(writer.write(note, f"job {n}", octets=1000) for n in range(3)))
    assert await asyncio.wait_for(outcomes(tasks), 10) == ["JOB 0", "JOB 1", "JOB 2"]
    await writer.close()


async def test_nobody_is_waited_for_at_the_end(database, monkeypatch):
    monkeypatch.setattr(writer_module, "GATHER_SECONDS", 60)
    writer = writing(database)
    writer.coming.update(("never", "nor this one"))
    (waiting,) = await begun(writer.write(note, "a"))
    await asyncio.sleep(0)
    await asyncio.wait_for(writer.close(), 10)
    assert await waiting == "A"


async def test_nor_behind_a_batch_that_is_written_at_the_end(database, monkeypatch):
    monkeypatch.setattr(writer_module, "GATHER_SECONDS", 60)
    async with held_up(database) as (writer, _):
        writer.coming.update(("never", "nor this one"))
        (waiting,) = await begun(writer.write(note, "a"))
        closing = asyncio.create_task(writer.close())
        await asyncio.sleep(0)
    await asyncio.wait_for(closing, 10)
    assert await waiting == "A"


async def test_the_queue_is_bounded_in_octets(database, monkeypatch):
    monkeypatch.setattr(writer_module, "QUEUE_OCTETS", 1000)
    async with held_up(database) as (writer, _):
        tasks = await begun(writer.write(note, "larger than the bound", octets=5000))
        with pytest.raises(StoreBusy):
            await writer.write(note, "b", octets=1)
    assert await outcomes(tasks) == ["LARGER THAN THE BOUND"]
    assert noted(database) == ["larger than the bound"]


async def test_the_bound_is_free_again_afterwards(database, monkeypatch):
    monkeypatch.setattr(writer_module, "QUEUE_OCTETS", 1000)
    async with held_up(database) as (writer, _):
        tasks = await begun(*(writer.write(note, f"job {n}", octets=400) for n in range(4)))
        await asyncio.sleep(0)
    busy = [each for each in await outcomes(tasks) if isinstance(each, StoreBusy)]
    assert len(busy) == 2
    again = writing(database)
    assert await again.write(note, "later", octets=900) == "LATER"
    await again.close()


async def test_a_batch_is_bounded_in_octets_and_in_jobs(database, monkeypatch):
    monkeypatch.setattr(writer_module, "BATCH_OCTETS", 1000)
    async with held_up(database) as (writer, commits):
        tasks = await begun(*(writer.write(note, f"a {n}", octets=400) for n in range(5)))
    assert await outcomes(tasks) == [f"A {n}" for n in range(5)]
    assert len(commits) == 1 + 3
    monkeypatch.setattr(writer_module, "BATCH_JOBS", 2)
    async with held_up(database) as (writer, commits):
        tasks = await begun(*(writer.write(note, f"b {n}") for n in range(5)))
    assert await outcomes(tasks) == [f"B {n}" for n in range(5)]
    assert len(commits) == 1 + 3


async def test_close_finishes_what_waits_and_takes_nothing_more(database):
    async with held_up(database) as (writer, _):
        tasks = await begun(*(writer.write(note, f"job {n}") for n in range(10)))
        closing = asyncio.create_task(writer.close())
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable):
            await writer.write(note, "too late")
    await closing
    assert await outcomes(tasks) == [f"JOB {n}" for n in range(10)]
    assert len(noted(database)) == 10


async def test_a_job_whose_caller_has_gone_is_still_done(database):
    async with held_up(database) as (writer, _):
        gone, here = await begun(writer.write(note, "gone"), writer.write(note, "here"))
        gone.cancel()
    assert await here == "HERE"
    assert gone.cancelled()
    assert noted(database) == ["gone", "here"]
