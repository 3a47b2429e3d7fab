"""One message's content on its way in: in memory while there is room, then in a file that has no name.

A hundred messages of 25 MB that arrive at once need a hundred parts of memory and the room they share,
whatever their size; a file without a name is gone when the process is, however that ends.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from mailstack.errors import StoreFull, StoreUnavailable

PART_OCTETS = 256 * 1024
"""The largest part of a message's content, and so the unit of memory that a writer or reader needs."""

Piece = bytes | bytearray | memoryview

_SMALL_OCTETS: Final = 16 * 1024
"""Chunks below this size are joined; a larger one is kept as it came, for a copy costs more."""

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_TMPFILE = frozenset({errno.EISDIR, errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL})


class Room:
    """Memory for more than one part of a message, shared by all spools that are given it."""

    __slots__ = ("parts",)

    def __init__(self, octets: int) -> None:
        self.parts = octets // PART_OCTETS
        """How many parts there is room for now."""


class Spool:
    """The content of one message, of which at most PART_OCTETS and what the room has are in memory.

    One task or thread writes; once it has ended, any one may read the parts. All spools of one room
    are written and closed by the same thread.
    """

    __slots__ = ("_directory", "_file", "_file_octets", "_kept", "_last", "_last_octets", "_room", "octets")

    def __init__(self, directory: Path, room: Room | None = None) -> None:
        self.octets = 0
        """How many octets have been written."""
        self._directory = directory
        self._room = room
        self._kept: list[Sequence[Piece]] = []  # the first parts, for which there was room
        self._file: io.FileIO | None = None  # the parts behind them
        self._file_octets = 0  # a multiple of PART_OCTETS
        self._last: list[Piece] = []  # the part that is not whole, or that nothing has followed yet
        self._last_octets = 0

    @classmethod
    def holding(cls, content: bytes) -> Self:
        """A small content of our own, which needs no directory."""
        assert len(content) <= PART_OCTETS
        spool = cls(Path())
        spool.write(content)
        return spool

    @property
    def in_memory(self) -> int:
        """How many octets are held in memory now."""
        return len(self._kept) * PART_OCTETS + self._last_octets

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
            # What is behind the part stays where it is only if the part does.
            rest = whole[left:] if self._kept_in_memory() else self._spilled(whole[left:])
            self._last, self._last_octets = [], 0
        self._append(rest)

    def _append(self, chunk: Piece) -> None:
        if len(chunk) >= _SMALL_OCTETS:
            self._last.append(chunk)
        elif self._last and isinstance(self._last[-1], bytearray):
            self._last[-1] += chunk
        elif chunk:
            self._last.append(bytearray(chunk))
        self._last_octets += len(chunk)

    def _kept_in_memory(self) -> bool:
        """Whether the part was kept, for which there has to be room, and nothing in the file yet."""
        if self._room is None or not self._room.parts or self._file is not None:
            return False
        self._room.parts -= 1
        self._kept.append(self._last)
        return True

    def _spilled(self, behind: memoryview) -> bytes:
        """Append the part to the file; what came behind it in the same chunk, without that chunk."""
        try:
            if self._file is None:
                self._file = unnamed_file(self._directory)
            written = os.writev(self._file.fileno(), self._last)
            missing = memoryview(b"".join(self._last))[written:] if written < PART_OCTETS else b""
            while missing:  # a full disk takes what fits, and says so at the next attempt
                missing = missing[os.write(self._file.fileno(), missing) :]
        except OSError as error:
            raise _fact(error) from error
        self._file_octets += PART_OCTETS
        return bytes(behind)

    def parts(self) -> Iterator[bytes]:
        """The content from its beginning, in parts of PART_OCTETS but for the last; as often as one likes.

        StoreUnavailable where the file cannot be read.
        """
        return map(b"".join, self.parts_in_turn())

    def parts_in_turn(self) -> Iterator[Sequence[Piece]]:
        """The same in pieces, for whoever is done with a part before asking for the next.

        Those that are read from the file share one memory.
        """
        if self.in_memory + self._file_octets != self.octets:
            raise StoreUnavailable("The spool was closed before its content was read.")
        yield from self._kept
        if self._file_octets:
            room = bytearray(PART_OCTETS)
            for offset in range(0, self._file_octets, PART_OCTETS):
                self._read_into(room, offset)
                yield (room,)
        if self._last:
            yield self._last

    def _read_into(self, room: bytearray, offset: int) -> None:
        if self._file is None:
            raise StoreUnavailable("The spool was closed before its content was read.")
        try:
            octets = os.preadv(self._file.fileno(), (room,), offset)
        except OSError as error:
            raise _fact(error) from error
        if octets != PART_OCTETS:
            raise StoreUnavailable("The spool file is shorter than what was written to it.")

    def close(self) -> None:
        """Forget the content, and give back memory and disk; closing again does nothing."""
        if self._room is not None:
            self._room.parts += len(self._kept)
        self._kept, self._last, self._last_octets = [], [], 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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


def _fact(error: OSError) -> StoreFull | StoreUnavailable:
    if error.errno in _NO_SPACE:
        return StoreFull("The disk of the spool directory is full.")
    return StoreUnavailable(f"The spool directory cannot be used: {error.strerror}.")
