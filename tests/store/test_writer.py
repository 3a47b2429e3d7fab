"""Group commit: what waits is written together, fails alone, and is never written twice."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import Connection, event, insert, select, text
from sqlalchemy.exc import IntegrityError

from mailstack.errors import AccountsRemoved, MaildropFilled, StoreBusy, StoreUnavailable
from mailstack.mail.spool import Spool
from mailstack.store import messages
from mailstack.store import writer as writer_module
from mailstack.store.engine import Database
from mailstack.store.messages import Deposit, Recipient
from mailstack.store.tables import entry, state
from mailstack.store.writer import Writer
from tests.support import maildrops
from tests.support.writing import writing


class Wrong(Exception):
    """What a guilty job does."""


def note(connection: Connection, jobs: Sequence[str]) -> list[str]:
    """Work: a row for each name; `wrong` is refused, in the middle of its batch."""
    for name in jobs:
        connection.execute(insert(state).values(name=name, value=1))
        if name == "wrong":
            raise Wrong
    return [name.upper() for name in jobs]


def noted(database: Database) -> list[str]:
    with database.reading() as connection:
        names = connection.execute(select(state.c.name).where(state.c.value == 1).order_by(state.c.name))
        return list(names.scalars())


class Stop:
    """Work that holds the thread up, so that jobs gather behind it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go = threading.Event()

    def __call__(self, connection: Connection, jobs: Sequence[None]) -> list[None]:
        self.reached.set()
        assert self.go.wait(10)
        return [None] * len(jobs)


def commits_of(database: Database) -> list[int]:
    """A list that gets another item with each commit of this process."""
    commits: list[int] = []
    if not database.is_sqlite:
        event.listen(database.engine, "commit", lambda connection: commits.append(1))
        return commits
    with database.writing() as connection:  # which is kept for all that is written later
        driver = connection.connection.driver_connection
    driver.set_trace_callback(lambda statement: commits.append(1) if statement == "COMMIT" else None)
    return commits


@asynccontextmanager
async def held_up(database: Database, stop: Stop | None = None) -> AsyncIterator[tuple[Writer, list[int]]]:
    """A writer whose thread is busy until the block ends; and what it commits, that included."""
    commits = commits_of(database)
    writer, stop = writing(database), stop or Stop()
    busy = asyncio.create_task(writer.write(stop, None))
    await asyncio.to_thread(stop.reached.wait)
    try:
        yield writer, commits
    finally:
        stop.go.set()
        await busy
        await writer.close()


async def begun(*coroutines) -> list[asyncio.Task]:
    """The tasks, each having handed its job over."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    await asyncio.sleep(0)
    return tasks


async def outcomes(tasks: list[asyncio.Task]) -> list[object]:
    return await asyncio.gather(*tasks, return_exceptions=True)


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


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "c", "d"]])
async def test_few_wait_until_they_are_as_many_as_are_written_or_those_are_done(database, names):
    writer, commits, stop = writing(database), commits_of(database), Stop()
    four = await begun(*(writer.write(stop, None) for _ in range(4)))
    await asyncio.to_thread(stop.reached.wait)
    few = []
    for name in names:  # each alone would have been another commit
        few += await begun(writer.write(note, name))
        await asyncio.sleep(0)
    stop.go.set()
    assert await outcomes([*four, *few]) == [None] * 4 + [name.upper() for name in names]
    assert len(commits) == 2
    await writer.close()


async def test_who_does_not_come_in_time_is_waited_for_once(database, monkeypatch):
    monkeypatch.setattr(writer_module, "GATHER_SECONDS", 0.001)
    writer = writing(database)
    writer.coming.add("slow")
    assert await writer.write(note, "a") == "A"
    monkeypatch.setattr(writer_module, "GATHER_SECONDS", 60)
    assert await asyncio.wait_for(writer.write(note, "b"), 10) == "B"
    await writer.close()


async def test_nobody_is_waited_for_at_the_end(database, monkeypatch):
    monkeypatch.setattr(writer_module, "GATHER_SECONDS", 60)
    writer = writing(database)
    writer.coming.add("never")
    (waiting,) = await begun(writer.write(note, "a"))
    await asyncio.wait_for(writer.close(), 10)
    assert await waiting == "A"


async def test_the_guilty_job_fails_alone(database):
    async with held_up(database) as (writer, _):
        tasks = await begun(*(writer.write(note, name) for name in ("a", "wrong", "b")))
    before, guilty, behind = await outcomes(tasks)
    assert (before, behind) == ("A", "B")
    assert isinstance(guilty, Wrong)
    assert noted(database) == ["a", "b"]


async def test_mail_for_an_account_that_was_removed_is_refused_within_the_others_transaction(database):
    maildrops.add_accounts(database, "jo@example.org")
    with Spool.holding(b"Subject: x\r\n\r\n") as spool:
        jobs = [Deposit("m", "", spool, False, (Recipient(to, b""),), at=1) for to in (1, 999, 1)]
        async with held_up(database) as (writer, commits):
            tasks = await begun(*(writer.write(messages.deposit, job) for job in jobs))
    before, refused, behind = await outcomes(tasks)
    assert isinstance(refused, AccountsRemoved)
    with database.reading() as connection:
        found = connection.execute(
            select(entry.c.message_id).where(entry.c.account_id == 1).order_by(entry.c.uid)
        )
        assert found.scalars().all() == [before, behind]
    assert len(commits) == 2, "one for the job that held the thread up, one for all three"


async def test_mail_that_a_maildrop_has_no_room_for_is_refused_within_the_others_transaction(database):
    maildrops.add_accounts(database, "jo@example.org", "full@example.org")
    with Spool.holding(b"Subject: x\r\n\r\n") as spool:
        with_room, full = Recipient(1, b"", bound=(None, 2)), Recipient(2, b"", bound=(0, None))
        to = ([with_room], [with_room, full], [with_room])
        jobs = [Deposit("m", "", spool, False, each, at=1) for each in to]
        async with held_up(database) as (writer, commits):
            tasks = await begun(*(writer.write(messages.deposit, job) for job in jobs))
    before, refused, behind = await outcomes(tasks)
    assert isinstance(refused, MaildropFilled)
    with database.reading() as connection:
        found = connection.execute(select(entry.c.account_id, entry.c.message_id).order_by(entry.c.uid))
        assert [tuple(row) for row in found] == [(1, before), (1, behind)]
    assert len(commits) == 2, "one for the job that held the thread up, one for all three"


async def test_a_row_that_contradicts_another_is_its_jobs_own_fault(database):
    async with held_up(database) as (writer, _):
        tasks = await begun(*(writer.write(note, name) for name in ("a", "twice", "twice", "b")))
    first, second, third, fourth = await outcomes(tasks)
    assert (first, second, fourth) == ("A", "TWICE", "B")
    assert isinstance(third, IntegrityError)
    assert noted(database) == ["a", "b", "twice"]


async def test_when_no_transaction_begins_all_fail_at_once(database, monkeypatch):
    tries = []

    def unavailable():
        tries.append(1)
        raise StoreUnavailable("no")

    stop = Stop()
    async with held_up(database, stop) as (writer, _):
        tasks = await begun(*(writer.write(note, f"job {n}") for n in range(20)))
        with monkeypatch.context() as patch:
            patch.setattr(database, "writing", unavailable)
            stop.go.set()
            assert all(isinstance(each, StoreUnavailable) for each in await outcomes(tasks))
    assert len(tries) == 1
    assert noted(database) == []


async def test_a_database_that_goes_away_within_a_batch_is_not_waited_for_by_each_job(database, monkeypatch):
    tries = []

    def unavailable():
        tries.append(1)
        raise StoreUnavailable("still no")

    def cut_off(connection: Connection, jobs: Sequence[str]) -> list[str]:
        monkeypatch.setattr(database, "writing", unavailable)
        raise StoreUnavailable("the connection was lost")

    async with held_up(database) as (writer, _):
        tasks = await begun(*(writer.write(cut_off, f"job {n}") for n in range(20)))
    found = await outcomes(tasks)
    assert all(isinstance(each, StoreUnavailable) for each in found)
    assert len(tries) == 2


async def test_a_job_that_the_database_refuses_fails_alone(database):
    def refused(connection: Connection, jobs: Sequence[str]) -> list[str]:
        if "wrong" in jobs:
            connection.exec_driver_sql("SELECT nothing FROM nowhere")
        return note(connection, jobs)

    async with held_up(database) as (writer, _):
        tasks = await begun(*(writer.write(refused, name) for name in ("a", "wrong", "b")))
    before, guilty, behind = await outcomes(tasks)
    assert (before, behind) == ("A", "B")
    assert isinstance(guilty, StoreUnavailable)
    assert noted(database) == ["a", "b"]


async def test_a_connection_that_breaks_before_the_commit_costs_nobody_anything(postgresql_url):
    database = Database(postgresql_url)
    tries = []

    def cut_off_once(connection: Connection, jobs: Sequence[str]) -> list[str]:
        done = note(connection, jobs)
        tries.append(1)
        if len(tries) == 1:
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return done

    writer = writing(database)
    assert await writer.write(cut_off_once, "job") == "JOB"
    await writer.close()
    assert noted(database) == ["job"]
    assert len(tries) == 2
    database.dispose()


async def test_a_deadlock_with_another_host_costs_nobody_anything(postgresql_url):
    ours, theirs = Database(postgresql_url), Database(postgresql_url)
    with ours.writing() as connection:
        note(connection, ["one", "two"])
    began, locked = threading.Event(), threading.Event()
    their_process: list[int] = []

    def lock(connection: Connection, name: str) -> None:
        connection.execute(select(state.c.name).where(state.c.name == name).with_for_update())

    def in_their_order() -> None:
        with theirs.writing() as connection:
            # Who looks for a deadlock is who is told of it: it has to be us, however slow the machine is.
            connection.execute(text("SET LOCAL deadlock_timeout = '1h'"))
            their_process.append(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
            lock(connection, "two")
            locked.set()
            assert began.wait(10)
            lock(connection, "one")

    def they_wait(connection: Connection) -> bool:
        waiting = text("SELECT 1 FROM pg_locks WHERE NOT granted AND pid = :pid")
        return connection.execute(waiting, {"pid": their_process[0]}).first() is not None

    def in_our_order(connection: Connection, jobs: Sequence[str]) -> list[str]:
        lock(connection, "one")
        if not began.is_set():
            began.set()
            while not they_wait(connection):
                time.sleep(0.005)
        lock(connection, "two")
        return list(jobs)

    other = threading.Thread(target=in_their_order)
    other.start()
    assert await asyncio.to_thread(locked.wait, 10)
    writer = writing(ours)
    assert await writer.write(in_our_order, "done") == "done"
    await writer.close()
    other.join()
    ours.dispose()
    theirs.dispose()


async def test_after_a_failed_commit_nothing_is_done_again(database, monkeypatch):
    """The COMMIT may have reached the disk: only the sender can know whether to send again."""
    driver_error = database.engine.dialect.loaded_dbapi.OperationalError
    commit = database.engine.dialect.do_commit

    def committed_and_lost(connection) -> None:
        commit(connection)
        raise driver_error("the connection was lost")

    writer = writing(database)
    with monkeypatch.context() as patch:
        patch.setattr(database.engine.dialect, "do_commit", committed_and_lost)
        tasks = await begun(*(writer.write(note, f"job {n}") for n in range(5)))
        found = await outcomes(tasks)
    assert all(isinstance(each, StoreUnavailable) for each in found)
    assert len(noted(database)) <= 5
    assert await writer.write(note, "next") == "NEXT"
    await writer.close()


async def test_a_failed_commit_that_did_not_happen_leaves_nothing(database, monkeypatch):
    driver_error = database.engine.dialect.loaded_dbapi.OperationalError

    def not_committed(connection) -> None:
        raise driver_error("the disk is on fire")

    writer = writing(database)
    with monkeypatch.context() as patch:
        patch.setattr(database.engine.dialect, "do_commit", not_committed)
        assert isinstance((await outcomes(await begun(writer.write(note, "a"))))[0], StoreUnavailable)
    assert noted(database) == []
    assert await writer.write(note, "a") == "A"
    await writer.close()
    assert noted(database) == ["a"]


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
