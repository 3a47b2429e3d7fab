"""What an import reads: messages in files of whatever format, each with what the files tell of it."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

CHUNK_OCTETS: Final = 256 * 1024


class Uidl(StrEnum):
    """Where unique-ids are taken from."""

    auto = "auto"
    dovecot = "dovecot"
    courier = "courier"
    x_uidl = "x-uidl"
    names = "names"
    new = "new"


class Found(NamedTuple):
    """One message of a source."""

    place: str  # where people find it: a file, or a number in one
    key: Any  # by which the source finds it again
    unique_id: str | None = None  # of the server that it comes from; None: its files do not tell
    certain: bool = True  # else that server only would have given it, at the next session
    from_format: bool = False  # Dovecot made it so, if it had not the setting to take X-UIDL before
    at: datetime | None = None  # when it arrived there; None: as its `Received:` says
    at_latest: datetime | None = None  # and where that does not say: so much is sure
    sender: str = ""  # where it has no `Return-Path:`


class Source(Protocol):
    """The messages of one maildrop elsewhere, in the order in which that server listed them."""

    kind: str
    """What it is, for people."""
    problems: list[str]
    """What could not be read or understood."""
    notes: list[str]
    """What else an administrator should know."""

    def find(self) -> Iterator[Found]:
        """All of them, once."""

    def chunks(self, found: Found) -> Iterator[bytes]:
        """The octets of one, whatever its line ends; OSError where they cannot be had."""

    def close(self) -> None:
        """Let go of the files."""


def read_text(path: Path) -> str:
    """A list of file names, which may be in any encoding."""
    return os.fsdecode(path.read_bytes())


def file_chunks(path: Path) -> Iterator[bytes]:
    """A whole file."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_OCTETS):
            yield chunk


def modified(path: os.PathLike[str], place: str, problems: list[str]) -> float | None:
    """When a message's file was last written, in seconds since the epoch; None: `problems` says why not."""
    try:
        found = os.stat(path)
    except OSError as error:
        problems.append(f"{shown(place)}: {error.strerror}")
        return None
    if not stat.S_ISREG(found.st_mode):  # nobody may ever write into a named pipe
        problems.append(f"{shown(place)}: it is no file")
        return None
    return found.st_mtime


def moment(seconds: float) -> datetime:
    """Seconds since the epoch, aware; neither before it nor in the future."""
    return datetime.fromtimestamp(min(max(seconds, 0.0), time.time()), UTC)


def shown(name: str) -> str:
    """A file's name, fit for a terminal."""
    return name if name.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
