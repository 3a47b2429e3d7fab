"""A batch with a guilty job, or with a database that fails: the others are written, and nothing twice."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

from sqlalchemy import Connection, select, text
from sqlalchemy.exc import IntegrityError

from mailstack.errors import AccountsRemoved, MaildropFilled, StoreUnavailable
from mailstack.mail.spool import Spool
from mailstack.store import messages
from mailstack.store.engine import Database
from mailstack.store.messages import Deposit, Recipient
from mailstack.store.tables import entry, state
from tests.store.jobs import Stop, Wrong, begun, held_up, note, noted, outcomes
from tests.support import maildrops
from tests.support.writing import writing


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
