"""The process that writes: what is handed to it, what comes back, and how either side sees the other end."""

from __future__ import annotations

import asyncio
import errno
import os
import pickle
import select
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, insert
from sqlalchemy import select as query

from mailstack.errors import MessageGone, StoreUnavailable
from mailstack.mail.spool import PART_OCTETS, Room, Spool
from mailstack.store import blobs, writing_process
from mailstack.store.engine import Database
from mailstack.store.messages import Deposit
from mailstack.store.tables import PARTS_A_MESSAGE, state
from mailstack.store.writer import Writer


class Wrong(Exception):
    """What comes back as it is."""


class Untold(Exception):
    """What no other process can be told."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(f"because of {reason}")
        self.reason = reason


def note(connection: Connection, jobs: Sequence[str]) -> list[str]:
    for name in jobs:
        connection.execute(insert(state).values(name=name, value=os.getpid()))
        if name == "wrong":
            raise Wrong("that one")
        if name == "untold":
            raise Untold(reason="its constructor")
        if name == "gone":
            raise MessageGone("a fact")
    return [name.upper() for name in jobs]


def numbered(number: int, spool: Spool) -> Deposit:
    return Deposit(str(number), "", spool, False, (), 0)


def put(connection: Connection, jobs: Sequence[Deposit]) -> list[int]:
    """Work: store the parts of each content, and say how many."""
    counts = []
    for deposit in jobs:
        parts = list(deposit.spool.parts())
        for key, part in enumerate(parts, int(deposit.mail_id) * PARTS_A_MESSAGE):
            blobs.put(connection, key, len(part), [part])
        counts.append(len(parts))
    return counts


def wait_for(connection: Connection, jobs: Sequence[str]) -> list[None]:
    """Work: wait until somebody has written to each named pipe."""
    for name in jobs:
        Path(name).read_bytes()
    return [None] * len(jobs)


def die(connection: Connection, jobs: Sequence[None]) -> list[None]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("never reached")


def content_of(database: Database, number: int, octets: int) -> bytes:
    """What `put` has stored."""
    with database.reading() as connection:
        parts = range(number * PARTS_A_MESSAGE, number * PARTS_A_MESSAGE - (-octets // PART_OCTETS))
        return b"".join(piece for each in parts for piece in blobs.pieces(connection, each))


def noted(database: Database) -> dict[str, int]:
    with database.reading() as connection:
        rows = connection.execute(query(state.c.name, state.c.value).order_by(state.c.name))
        return {name: value for name, value in rows if name.islower()}


@asynccontextmanager
async def writing(database: Database) -> AsyncIterator[tuple[Writer, int]]:
    """A writer, and the process that writes for it."""
    process = writing_process.fork(database.url.render_as_string(hide_password=False))
    writer = Writer(process.joined)
    try:
        yield writer, process.pid
    finally:
        await asyncio.wait_for(writer.close(), 20)
        assert not os.path.exists(f"/proc/{process.pid}"), "it has ended, and was waited for"  # noqa: ASYNC240


async def outcomes(*jobs) -> list[object]:
    return await asyncio.gather(*jobs, return_exceptions=True)


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


async def test_content_comes_whole_wherever_it_is_kept(database, tmp_path):
    room = Room(4 * PART_OCTETS)
    sizes = [0, 1, PART_OCTETS, PART_OCTETS + 1, 3 * PART_OCTETS + 5, 7 * PART_OCTETS] + 70 * [10_000]
    contents = [os.urandom(size) for size in sizes]
    spools = []
    for content in contents:
        spools.append(Spool(tmp_path, room))
        spools[-1].write(content)
    async with writing(database) as (writer, pid):
        jobs = [asyncio.create_task(writer.write(put, numbered(n, each))) for n, each in enumerate(spools, 1)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # it is handed over now, and nobody has to wait for it
        for spool in spools:
            spool.close()
        assert room.parts == 4
        # With the numbers that were the spools':
        others = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
        assert await asyncio.gather(*jobs) == [-(-size // PART_OCTETS) for size in sizes]
        for each in others:
            os.close(each)
        await writer.write(note, "behind them")
        assert not any("memfd:" in name or "(deleted)" in name for name in files_of(pid)[3:]), (
            "they are closed"
        )
    for number, content in enumerate(contents, 1):
        assert content_of(database, number, len(content)) == content


async def test_what_cannot_be_handed_over_fails_alone(database, tmp_path, monkeypatch):
    room = Room(8 * PART_OCTETS)
    spools = [Spool(tmp_path, room) for _ in range(3)]
    for spool in spools:
        spool.write(b"x" * PART_OCTETS * 2)
    spools[1].close()
    before = os.listdir("/proc/self/fd")
    async with writing(database) as (writer, _):
        jobs = [writer.write(put, numbered(number, each)) for number, each in enumerate(spools, 1)]
        first, closed, third, unknown = await outcomes(*jobs, writer.write(lambda connection, jobs: jobs, 1))
        assert (first, third) == (2, 2)
        assert isinstance(closed, StoreUnavailable)
        assert isinstance(unknown, AttributeError | pickle.PicklingError)
        monkeypatch.setattr(os, "dup", no_more_files)
        (refused,) = await outcomes(writer.write(put, numbered(4, spools[0])))
        assert isinstance(refused, StoreUnavailable)
        assert "Too many open files" in str(refused)
        assert await writer.write(note, "next") == "NEXT"
    for spool in spools:
        spool.close()
    assert len(os.listdir("/proc/self/fd")) <= len(before), "no descriptor is left behind"


async def test_a_batch_with_more_files_than_one_frame_takes_is_handed_over_one_by_one(
    database, tmp_path, monkeypatch
):
    monkeypatch.setattr(writing_process, "_DESCRIPTORS", 3)
    before = os.listdir("/proc/self/fd")
    spools = [Spool(tmp_path) for _ in range(5)]
    for spool in spools:
        spool.write(b"x" * 20_000)
    async with writing(database) as (writer, _):
        jobs = [writer.write(put, numbered(number, each)) for number, each in enumerate(spools, 1)]
        assert await outcomes(*jobs) == [1] * 5
    assert len(os.listdir("/proc/self/fd")) <= len(before), "no descriptor is left behind"


def no_more_files(_what: object) -> int:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def test_where_the_system_has_no_files_in_memory_content_is_handed_over_without(
    database, tmp_path, monkeypatch
):
    def forbidden(_name: str) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "memfd_create", forbidden)
    contents = [os.urandom(size) for size in (1000, 20_000, PART_OCTETS, 2 * PART_OCTETS + 1)]
    room = Room(4 * PART_OCTETS)
    async with writing(database) as (writer, _):
        spools = [Spool(tmp_path, room) for _ in contents]
        for spool, content in zip(spools, contents, strict=True):
            spool.write(content)
        assert room.parts == 4
        jobs = [writer.write(put, numbered(number, each)) for number, each in enumerate(spools, 1)]
        assert await outcomes(*jobs) == [1, 1, 1, 3]
        for spool in spools:
            spool.close()
    for number, content in enumerate(contents, 1):
        assert content_of(database, number, len(content)) == content


async def test_nobody_hears_of_another_batch_where_the_system_does_not_take_one(
    database, tmp_path, monkeypatch
):
    """Reports come in the order of the batches: behind one that was not sent none may be."""
    send, refusals = socket.send_fds, iter([OSError(errno.ENOBUFS, "No buffer space available")])

    def scarce(*frame):
        for refusal in refusals:
            raise refusal
        return send(*frame)

    before = os.listdir("/proc/self/fd")
    spool = Spool(tmp_path)
    spool.write(b"x" * 20_000)
    async with writing(database) as (writer, _):
        told: list[str] = []
        writer.on_lost.append(lambda: told.append("lost"))
        assert await writer.write(note, "before") == "BEFORE"
        monkeypatch.setattr(socket, "send_fds", scarce)
        refused, *behind = await asyncio.wait_for(
            outcomes(
                writer.write(put, numbered(1, spool)), *(writer.write(note, f"job {n}") for n in range(60))
            ),
            20,
        )
        assert isinstance(refused, StoreUnavailable)
        assert all(isinstance(each, StoreUnavailable) for each in behind)
        assert told == ["lost"]
    spool.close()
    assert len(os.listdir("/proc/self/fd")) <= len(before), "no descriptor is left behind"
    assert noted(database).keys() == {"before"}


async def test_no_content_is_taken_for_another_where_a_descriptor_does_not_come(
    database, tmp_path, monkeypatch
):
    """The kernel drops those that the process has no number for, and says so (unix(7), MSG_CTRUNC)."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    receive, dropping = socket.recv_fds, iter([True])

    def without_the_first(*arguments):
        octets, descriptors, flags, address = receive(*arguments)
        if descriptors and next(dropping, False):
            os.close(descriptors[0])
            return octets, descriptors[1:], flags | socket.MSG_CTRUNC, address
        return octets, descriptors, flags, address

    monkeypatch.setattr(socket, "recv_fds", without_the_first)
    spools = [Spool(tmp_path) for _ in range(60)]
    for number, spool in enumerate(spools):
        spool.write(str(number % 10).encode() * (20_000 if number in (0, 55) else 15_000))
    async with writing(database) as (writer, _):
        first = asyncio.create_task(writer.write(wait_for, str(pipe)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        jobs = [asyncio.create_task(writer.write(put, numbered(n, each))) for n, each in enumerate(spools, 1)]
        await asyncio.sleep(0)
        await asyncio.to_thread(pipe.write_bytes, b"go")
        await first
        done = await outcomes(*jobs)
    for number, (spool, outcome) in enumerate(zip(spools, done, strict=True), 1):
        if isinstance(outcome, int):
            assert content_of(database, number, spool.octets) == b"".join(spool.parts())
        else:
            assert isinstance(outcome, StoreUnavailable)
        spool.close()
    assert isinstance(done[0], StoreUnavailable)


async def test_more_than_the_socket_takes_is_sent_bit_by_bit(database, tmp_path):
    """While the process is busy: the loop goes on, and nothing is mixed up."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    contents = [os.urandom(200_000 + n) for n in range(150)]
    async with writing(database) as (writer, _):
        first = asyncio.create_task(writer.write(wait_for, str(pipe)))
        await asyncio.sleep(0)
        spools = []
        for content in contents:
            spools.append(Spool(tmp_path))
            spools[-1].write(content)
        jobs = [asyncio.create_task(writer.write(put, numbered(n, each))) for n, each in enumerate(spools, 1)]
        await asyncio.sleep(0)
        assert len(writer.waiting) == 2
        assert writer.waiting[0] == 151
        await asyncio.to_thread(pipe.write_bytes, b"go")
        await asyncio.gather(first, *jobs)
        for spool in spools:
            spool.close()
    for number, content in enumerate(contents, 1):
        assert content_of(database, number, len(content)) == content


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


def files_of(pid: int) -> list[str]:
    folder = Path(f"/proc/{pid}/fd")
    return [os.readlink(folder / name) for name in sorted(os.listdir(folder), key=int)]


FRAMES = st.lists(st.tuples(st.binary(max_size=50), st.integers(0, 9)), max_size=8)


@given(FRAMES, st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_frames_come_out_as_they_went_in_however_they_are_cut(frames, cuts):
    header = writing_process._HEADER
    stream = b"".join(header.pack(len(octets), count) + octets for octets, count in frames)
    read, found, at, turn = bytearray(), [], 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        read += stream[at : at + size]
        while frame := writing_process._taken_out(read):
            found.append(frame)
        at, turn = at + size, turn + 1
    assert found == frames
    assert not read
