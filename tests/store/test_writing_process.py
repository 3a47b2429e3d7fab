"""The process that writes: results and errors that come back, and how either side sees the other end."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
import socket
from collections.abc import Sequence

import pytest
from sqlalchemy import Connection

from mailstack.errors import MessageGone, StoreUnavailable
from mailstack.store import writing_process
from tests.support.writing_process import Wrong, files_of, note, noted, outcomes, wait_for, writing


def die(connection: Connection, jobs: Sequence[None]) -> list[None]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("never reached")


async def test_another_process_writes_and_the_results_come_back(database):
    async with writing(database) as (writer, pid):
        assert await outcomes(*(writer.write(note, f"job {n}") for n in range(200))) == [
            f"JOB {n}" for n in range(200)
        ]
        assert writer.waiting == (0, 0)
        assert set(noted(database).values()) == {pid}
        assert writer.commits.jobs == 200
        assert 0 < sum(writer.commits.steps) < 200, "batches"


async def test_errors_come_back_each_to_its_own_job(database):
    async with writing(database) as (writer, _):
        a, wrong, untold, gone, b = await outcomes(
            *(writer.write(note, name) for name in ("a", "wrong", "untold", "gone", "b"))
        )
    assert (a, b) == ("A", "B")
    assert isinstance(wrong, Wrong)
    assert str(wrong) == "that one"
    assert isinstance(untold, RuntimeError)
    assert str(untold) == "Untold: because of its constructor"
    assert isinstance(gone, MessageGone)
    assert list(noted(database)) == ["a", "b"]


async def test_when_it_dies_everybody_who_waits_is_told(database):
    async with writing(database) as (writer, _):
        told: list[str] = []
        writer.on_lost.append(lambda: told.append("lost"))
        assert await writer.write(note, "before") == "BEFORE"
        jobs = [
            asyncio.create_task(writer.write(die, None)),
            asyncio.create_task(writer.write(note, "with it")),
        ]
        for found in await outcomes(*jobs):
            assert isinstance(found, StoreUnavailable)
        assert told == ["lost"]
        with pytest.raises(StoreUnavailable, match="has died"):
            await writer.write(note, "after")
    assert list(noted(database)) == ["before"]


async def test_how_it_has_died_is_told(database, caplog):
    """Who has run out of memory finds a signal that nobody sent."""
    async with writing(database) as (writer, pid):
        await outcomes(writer.write(die, None))
    (told,) = [record for record in caplog.records if record.message == "writing process ended"]
    assert told.fields == {"pid": pid, "how": "Killed"}


def test_where_it_cannot_be_started_that_is_said_and_nothing_is_left_open(database, monkeypatch):
    def refused() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refused)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(StoreUnavailable, match="process that writes mail cannot be started: Resource temp"):
        writing_process.fork(database.url.render_as_string(hide_password=False))
    assert os.listdir("/proc/self/fd") == before


async def test_a_job_whose_caller_has_gone_away_is_done(database, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    async with writing(database) as (writer, _):
        first = asyncio.create_task(writer.write(wait_for, str(pipe)))
        gone = asyncio.create_task(writer.write(note, "of somebody who has gone"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.to_thread(pipe.write_bytes, b"go")
        await first
        assert await writer.write(note, "next") == "NEXT"
    assert list(noted(database)) == ["next", "of somebody who has gone"]


async def test_what_waits_is_written_before_the_end(database):
    async with writing(database) as (writer, _):
        jobs = [asyncio.create_task(writer.write(note, f"job {n}")) for n in range(100)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*jobs) == [f"JOB {n}" for n in range(100)]
    with pytest.raises(StoreUnavailable, match="stopping"):
        await writer.write(note, "late")


async def test_signals_for_everybody_do_not_end_it(database):
    async with writing(database) as (writer, pid):
        await writer.write(note, "it runs")
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, each)
        assert await writer.write(note, "and goes on") == "AND GOES ON"


async def test_it_has_no_part_in_what_its_parent_has_open(database):
    with socket.create_server(("127.0.0.1", 0)):
        async with writing(database) as (writer, pid):
            await writer.write(note, "it runs")
            found = files_of(pid)
            server = 0 if database.is_sqlite else 1
            assert sum(name.startswith("socket:") for name in found) == 1 + server, "the one to its parent"
            assert not any(name.startswith("pipe:") for name in found[3:])


def test_it_ends_when_its_parent_is_killed(database):
    words, told = os.pipe()
    url = database.url.render_as_string(hide_password=False)
    if not (parent := os.fork()):
        process = writing_process.fork(url)
        os.write(told, str(process.pid).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(told)
    pid = int(os.read(words, 20))
    os.close(words)
    watched = os.pidfd_open(pid)
    os.waitpid(parent, 0)
    assert select.select([watched], [], [], 20)[0]
    os.close(watched)
