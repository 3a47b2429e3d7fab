"""The spool: what is written comes back, memory stays bounded, and the disk keeps nothing."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailstack.errors import StoreFull, StoreUnavailable
from mailstack.mail import spool as spool_module
from mailstack.mail.spool import PART_OCTETS, Room, Spool, unlinked_file, unnamed_file
from tests.support.small_files import files_of_at_most


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path) as spool:
        yield spool


def test_an_empty_spool_has_no_parts(spool: Spool) -> None:
    assert list(spool.parts()) == []
    assert (spool.octets, spool.in_memory) == (0, 0)


def test_small_content_stays_in_memory(spool: Spool, tmp_path: Path) -> None:
    tmp_path.rmdir()  # so that any file would fail
    spool.write(b"a" * (PART_OCTETS - 1))
    spool.write(b"b")
    assert (spool.octets, spool.in_memory) == (PART_OCTETS, PART_OCTETS)
    assert list(spool.parts()) == [b"a" * (PART_OCTETS - 1) + b"b"]


def test_content_stays_in_memory_where_there_is_room(tmp_path: Path) -> None:
    room = Room(5 * PART_OCTETS)
    tmp_path.rmdir()  # so that any file would fail
    content = b"a" * 1000 + b"b" * 3 * PART_OCTETS + b"c" * 200
    with Spool(tmp_path, room) as spool:
        spool.write(content[:900])
        spool.write(content[900:])
        assert (spool.in_memory, room.parts) == (len(content), 2)
        assert b"".join(spool.parts()) == content
        assert spool.head(2000) == content[:2000]
    assert room.parts == 5


def test_what_the_room_has_not_is_in_the_file(tmp_path: Path) -> None:
    room = Room(3 * PART_OCTETS)
    with Spool(tmp_path, room) as first, Spool(tmp_path, room) as second:
        for part in range(5):
            first.write(bytes([part]) * PART_OCTETS)
            second.write(bytes([part]) * PART_OCTETS)
            assert first.in_memory + second.in_memory <= (3 + 2) * PART_OCTETS
        assert open_files_in(tmp_path) == 2
        assert list(first.parts()) == list(second.parts()) == [bytes([n]) * PART_OCTETS for n in range(5)]
        second.close()
        first.write(b"x")  # what is in the file is not overtaken
        assert [part[:1] for part in first.parts()][-2:] == [b"\4", b"x"]
    assert room.parts == 3


def test_a_part_that_goes_to_the_file_leaves_no_chunk_in_memory(spool: Spool) -> None:
    for _ in range(7):
        spool.write(b"a" * (PART_OCTETS - 1))
        assert all(isinstance(piece, bytes | bytearray) for piece in spool._last)
        assert sum(map(len, spool._last)) == spool.in_memory


def test_octets_that_come_one_by_one_are_no_object_each(spool: Spool) -> None:
    for octet in b"abc" * 1000:
        spool.write(bytes([octet]))
    spool.write(b"d" * PART_OCTETS)
    spool.write(b"e")
    assert sum(len(pieces) for pieces in spool.parts_in_turn()) < 4
    assert b"".join(spool.parts()) == b"abc" * 1000 + b"d" * PART_OCTETS + b"e"


SIZES = st.one_of(
    st.integers(0, 40),
    st.sampled_from([PART_OCTETS - 1, PART_OCTETS, PART_OCTETS + 1, 2 * PART_OCTETS, 3 * PART_OCTETS + 7]),
)


@given(st.lists(SIZES, max_size=6), st.integers(0, 4))
def test_what_is_written_comes_back_in_whole_parts(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], room: int
) -> None:
    directory = tmp_path_factory.getbasetemp()
    content = b""
    with Spool(directory, Room(room * PART_OCTETS)) as spool:
        for number, size in enumerate(sizes):
            spool.write(bytes([number]) * size)
            content += bytes([number]) * size
            assert spool.in_memory <= (1 + room) * PART_OCTETS
            assert spool.head(600) == content[:600]
        assert spool.octets == len(content)
        parts = list(spool.parts())
        assert b"".join(parts) == content
        assert all(len(part) == PART_OCTETS for part in parts[:-1])
        assert all(parts)
        assert list(spool.parts()) == parts
        assert [b"".join(part) for part in spool.parts_in_turn()] == parts


def test_another_thread_may_read(spool: Spool) -> None:
    spool.write(b"a" * PART_OCTETS * 3)
    spool.write(b"b")
    with ThreadPoolExecutor(1) as other:
        assert other.submit(lambda: [part[:1] for part in spool.parts()]).result() == [b"a", b"a", b"a", b"b"]


def test_who_reads_a_spool_that_is_closed_meanwhile_never_gets_a_part_too_few(spool: Spool) -> None:
    spool.write(b"a" * PART_OCTETS * 2)
    spool.write(b"b")
    parts = spool.parts()
    assert [part[:1] for part in (next(parts), next(parts))] == [b"a", b"a"]
    parts_of_others = spool.parts()
    next(parts_of_others)
    spool.close()
    assert list(parts) == [b"b"]
    with pytest.raises(StoreUnavailable, match="closed"):
        next(parts_of_others)
    with pytest.raises(StoreUnavailable, match="closed"):
        next(spool.parts())


def test_a_spilled_spool_has_no_name_and_is_its_owners(spool: Spool, tmp_path: Path) -> None:
    spool.write(b"a" * PART_OCTETS * 2)
    assert list(tmp_path.iterdir()) == []
    assert open_files_in(tmp_path) == 1
    spool.close()
    assert open_files_in(tmp_path) == 0


def open_files_in(directory: Path) -> int:
    links = [Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd")]
    return sum(os.readlink(link).startswith(str(directory)) for link in links if link.is_symlink())


@pytest.mark.parametrize("make", [unnamed_file, unlinked_file])
def test_both_kinds_of_file_have_no_name(make: object, tmp_path: Path) -> None:
    assert callable(make)
    with make(tmp_path) as file:
        assert list(tmp_path.iterdir()) == []
        status = os.fstat(file.fileno())
        assert (status.st_nlink, stat.S_IMODE(status.st_mode)) == (0, 0o600)
        file.write(b"abc")
        assert os.pread(file.fileno(), 9, 0) == b"abc"


def test_closing_twice_does_nothing(spool: Spool) -> None:
    spool.write(b"a" * PART_OCTETS * 2)
    spool.close()
    spool.close()
    assert spool.in_memory == 0
    with pytest.raises(StoreUnavailable):
        list(spool.parts())


def test_a_missing_directory_is_temporary(tmp_path: Path) -> None:
    with Spool(tmp_path / "missing") as spool, pytest.raises(StoreUnavailable):
        spool.write(b"a" * PART_OCTETS * 2)


def test_a_file_that_cannot_grow_is_temporary(spool: Spool) -> None:
    spool.write(b"a" * PART_OCTETS * 2)
    # Room for half of a part: the first write is short, the next one fails.
    with files_of_at_most(PART_OCTETS + PART_OCTETS // 2), pytest.raises(StoreUnavailable):
        spool.write(b"b" * PART_OCTETS)


def test_a_file_that_lost_octets_is_noticed(spool: Spool) -> None:
    spool.write(b"a" * PART_OCTETS * 2)
    spool._files[0].file.truncate(10)
    with pytest.raises(StoreUnavailable, match="shorter"):
        list(spool.parts())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_has_its_own_name(number: int) -> None:
    assert isinstance(spool_module._fact(OSError(number, "no room")), StoreFull)


def test_other_failures_name_their_reason() -> None:
    fact = spool_module._fact(OSError(errno.EIO, "Input/output error"))
    assert isinstance(fact, StoreUnavailable)
    assert "Input/output error" in str(fact)
