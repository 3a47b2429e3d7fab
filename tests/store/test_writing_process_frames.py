"""What is handed to the process that writes: frames with content and descriptors, whole or not at all."""

from __future__ import annotations

import asyncio
import errno
import os
import pickle
import socket
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection

from mailstack.errors import StoreUnavailable
from mailstack.mail.spool import PART_OCTETS, Room, Spool
from mailstack.store import blobs, frames
from mailstack.store.engine import Database
from mailstack.store.messages import Deposit
from mailstack.store.parts import content_id, content_ids
from tests.support.writing_process import files_of, note, noted, outcomes, wait_for, writing


def numbered(number: int, spool: Spool) -> Deposit:
    return Deposit(str(number), "", spool, False, (), 0)


def put(connection: Connection, jobs: Sequence[Deposit]) -> list[int]:
    """Work: store the parts of each content, and say how many."""
    counts = []
    for deposit in jobs:
        parts = list(deposit.spool.parts())
        for key, part in enumerate(parts, content_id(int(deposit.mail_id))):
            blobs.put(connection, key, [part])
        counts.append(len(parts))
    return counts


def content_of(database: Database, number: int, octets: int) -> bytes:
    """What `put` has stored."""
    with database.reading() as connection:
        ids = content_ids(number, octets)
        return b"".join(piece for each in ids for piece in blobs.pieces(connection, each))


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
        for _ in range(3):  # they ask, one batch is handed over, and the other: nobody has to wait for it now
            await asyncio.sleep(0)
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
    monkeypatch.setattr(frames, "DESCRIPTORS", 3)
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


FRAMES = st.lists(st.tuples(st.binary(max_size=50), st.integers(0, 9)), max_size=8)


@given(FRAMES, st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_frames_come_out_as_they_went_in_however_they_are_cut(sent, cuts):
    header = frames._HEADER
    stream = b"".join(header.pack(len(octets), count) + octets for octets, count in sent)
    read, found, at, turn = bytearray(), [], 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        read += stream[at : at + size]
        while frame := frames.taken_out(read):
            found.append(frame)
        at, turn = at + size, turn + 1
    assert found == sent
    assert not read
