"""One message's content on its way in: its last part in memory, what is before that in files without a name.

A hundred messages of 25 MB that arrive at once need a hundred parts of memory and the room they share,
whatever their size; a file without a name is gone when the process is, however that ends.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from mailstack.errors import StoreFull, StoreUnavailable

PART_OCTETS = 256 * 1024
"""The largest part of a message's content, and so the unit of memory that a writer or reader needs."""

Piece = bytes | bytearray | memoryview

_SMALL_OCTETS: Final = 16 * 1024
"""Chunks below this size are joined; a larger one is kept as it came, for a copy costs more."""

_NOWHERE: Final = Path()  # of a spool that has no files to make; a Path costs 3 us to make
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_TMPFILE = frozenset({errno.EISDIR, errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL})


class Room:
    """Memory for more than one part of a message, shared by all spools that are given it."""

    __slots__ = ("parts",)

    def __init__(self, octets: int) -> None:
        self.parts = octets // PART_OCTETS
        """How many parts there is room for now."""


class _File(NamedTuple):
    """Where whole parts are kept; one without room is on a disk."""

    file: io.FileIO
    octets: int
    room: Room | None = None


class Spool:
    """The content of one message: its last part in memory, those before it in files without a name.

    These are in memory themselves as far as the room goes, and behind that on a disk. One task or thread
    writes; once it has ended, any one may read the parts. All spools of one room are written and closed by
    the same thread.
    """

    __slots__ = ("_directory", "_files", "_last", "_last_octets", "_room", "octets")

    def __init__(self, directory: Path, room: Room | None = None) -> None:
        self.octets = 0
        """How many octets have been written."""
        self._directory = directory
        self._room = room
        self._files: list[_File] = []  # each with a multiple of PART_OCTETS
        self._last: list[Piece] = []  # the part that is not whole, or that nothing has followed yet
        self._last_octets = 0

    @classmethod
    def holding(cls, content: bytes) -> Self:
        """A small content of our own, which needs no directory."""
        assert len(content) <= PART_OCTETS
        spool = cls(_NOWHERE)
        spool.write(content)
        return spool

    @classmethod
    def borrowed(cls, files: Sequence[tuple[int, int]], last: bytes) -> Self:
        """What another process has `lent`: files by their descriptors, which are closed with this one."""
        spool = cls(_NOWHERE)
        spool._files = [_File(io.FileIO(descriptor, "r+"), octets) for descriptor, octets in files]
        spool._last, spool._last_octets = [last] if last else [], len(last)
        spool.octets = sum(octets for _, octets in files) + len(last)
        return spool

    def lent(self) -> tuple[list[tuple[int, int]], Sequence[Piece]]:
        """What `borrowed` makes the same content of: descriptors with their octets, and the last part.

        Which may come in a file, too.
        """
        files, last = self._whole()
        return [(each.file.fileno(), each.octets) for each in files], last

    @property
    def in_memory(self) -> int:
        """How many octets are held in memory now."""
        return sum(each.octets for each in self._files if each.room) + self._last_octets

    def head(self, octets: int) -> bytes:
        """The first octets, at most so many and at most a part."""
        head = bytearray()
        for piece in next(self.parts_in_turn(), ()):
            head += piece[: octets - len(head)]
        return bytes(head)

    def write(self, chunk: bytes) -> None:
        """Append the chunk. StoreFull or StoreUnavailable where the disk does not take it.

        This may write to the page cache and does not wait for the disk: the content is promised to
        nobody before the store has it.
        """
        self.octets += len(chunk)
        rest: Piece = chunk
        while len(rest) > (left := PART_OCTETS - self._last_octets):
            whole = memoryview(rest)
            self._append(whole[:left])
            self._put_away()
            rest = whole[left:]
        # What is small is copied, and what is not must not keep the part before it in memory.
        self._append(bytes(rest) if isinstance(rest, memoryview) else rest)

    def _append(self, chunk: Piece) -> None:
        if len(chunk) >= _SMALL_OCTETS:
            self._last.append(chunk)
        elif self._last and isinstance(self._last[-1], bytearray):
            self._last[-1] += chunk
        elif chunk:
            self._last.append(bytearray(chunk))
        self._last_octets += len(chunk)

    def _put_away(self) -> None:
        """Move the part, which is whole, to a file."""
        try:
            file, octets, room = self._files.pop() if self._goes_on() else self._new_file()
            self._files.append(_File(file, octets, room))  # to be closed, whatever comes
            written = os.writev(file.fileno(), self._last)
            missing = memoryview(b"".join(self._last))[written:] if written < PART_OCTETS else b""
            while missing:  # a full disk takes what fits, and says so at the next attempt
                missing = missing[os.write(file.fileno(), missing) :]
        except OSError as error:
            raise _fact(error) from error
        self._files[-1] = _File(file, octets + PART_OCTETS, room)
        if room is not None:
            room.parts -= 1
        self._last, self._last_octets = [], 0

    def _goes_on(self) -> bool:
        """Whether the file that is written to takes another part."""
        if not self._files:
            return False
        room = self._files[-1].room
        return room is None or room.parts > 0

    def _new_file(self) -> _File:
        if not self._files and self._room is not None and self._room.parts > 0:
            with suppress(OSError):  # where a sandbox forbids it, say, there is still the disk
                return _File(io.FileIO(os.memfd_create("spool"), "r+"), 0, self._room)
        return _File(unnamed_file(self._directory), 0)

    def parts(self) -> Iterator[bytes]:
        """The content from its beginning, in parts of PART_OCTETS but for the last; as often as one likes.

        StoreUnavailable where the file cannot be read.
        """
        return map(b"".join, self.parts_in_turn())

    def parts_in_turn(self) -> Iterator[Sequence[Piece]]:
        """The same in pieces, for whoever is done with a part before asking for the next.

        Those that are read from the file share one memory.
        """
        files, last = self._whole()
        for file, octets, _ in files:
            room = bytearray(min(octets, PART_OCTETS))
            for offset in range(0, octets, PART_OCTETS):
                if file.closed:
                    raise _closed()
                part = memoryview(room)[: octets - offset]
                _read_into(part, file, offset)
                yield (part,)
        if last:
            yield last

    def _whole(self) -> tuple[Sequence[_File], Sequence[Piece]]:
        """All that was written: who reads goes on with it, or fails, when another thread closes the spool."""
        files, last = self._files, self._last
        if sum(each.octets for each in files) + sum(map(len, last)) != self.octets:
            raise _closed()
        return files, last

    def close(self) -> None:
        """Forget the content, and give back memory and disk; closing again does nothing."""
        for file, octets, room in self._files:
            file.close()
            if room is not None:
                room.parts += octets // PART_OCTETS
        self._files, self._last, self._last_octets = [], [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _read_into(room: memoryview, file: io.FileIO, offset: int) -> None:
    try:
        octets = os.preadv(file.fileno(), (room,), offset)
    except OSError as error:
        raise _fact(error) from error
    if octets != len(room):
        raise StoreUnavailable("The spool file is shorter than what was written to it.")


def unnamed_file(directory: Path) -> io.FileIO:
    """A new file in this directory that has no name in it, for its owner alone to read and write."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return io.FileIO(os.open(directory, flags | os.O_TMPFILE, 0o600), "r+")
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
    return unlinked_file(directory)


def unlinked_file(directory: Path) -> io.FileIO:
    """The same on a file system that has no O_TMPFILE: made under a random name, which is removed at once."""
    name = directory / f".spool-{os.urandom(16).hex()}"
    descriptor = os.open(name, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.unlink(name)
    except OSError:
        os.close(descriptor)
        raise
    return io.FileIO(descriptor, "r+")


def _closed() -> StoreUnavailable:
    return StoreUnavailable("The spool was closed before its content was read.")


def _fact(error: OSError) -> StoreFull | StoreUnavailable:
    if error.errno in _NO_SPACE:
        return StoreFull("The disk of the spool directory is full.")
    return StoreUnavailable(f"The spool directory cannot be used: {error.strerror}.")
