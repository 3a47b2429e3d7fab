"""The files of a backup folder, and nothing of what they mean.

    mailstack-backup.json      what this folder is, and of which store
    content/00000001.db        an archive: messages with their content, written once
    20261123T061500Z/mail.db   all the rest of the store at that moment, as a store of SQLite
    20261123T061500Z/backup.json   facts about it

Everything is written under a passing name, synced, and then renamed: what has such a name was whole once.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from mailstack.errors import AlreadyRunning, BadData, NotFound, StoreFull
from mailstack.files import sync, write_whole
from mailstack.store.driver_errors import code_of

FORMAT: Final = 1
_ABOUT: Final = "mailstack-backup.json"
_FACTS: Final = "backup.json"
_STAMP: Final = "%Y%m%dT%H%M%SZ"
_NAME: Final = re.compile(r"\d{8}T\d{6}Z")


class Facts(NamedTuple):
    """What `backup.json` says of one backup."""

    made_at: datetime
    revision: str
    accounts: int
    messages: int
    octets: int
    last_message_id: int
    last_account_id: int


class Made(NamedTuple):
    """One finished backup."""

    name: str
    path: Path
    facts: Facts


class Damaged(NamedTuple):
    """What was a backup, and why its facts are not to be had."""

    name: str
    path: Path
    problem: str


class Folder:
    """A directory of backups of one store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content = path / "content"

    def open(self) -> int:
        """The identity of the store whose backups these are; raises BadData where there are none."""
        try:
            about = json.loads((self.path / _ABOUT).read_bytes())
            if about["format"] > FORMAT:
                raise BadData(f"{self.path} was written by a newer mailstack; install that one")
            return int(about["store"])
        except PermissionError:
            raise
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise BadData(f"{self.path} is no folder of backups") from error

    def prepare(self, identity: int) -> None:
        """Make the folder, or see that it is of the same store; raises BadData."""
        if (self.path / _ABOUT).exists():
            if self.open() != identity:
                raise BadData(f"{self.path} holds backups of another store; choose another folder")
            return
        # A draft is left of one that was cut off, and is in nobody's way.
        if self.path.exists() and any(not each.match(f"{_ABOUT}*.partial") for each in self.path.iterdir()):
            raise BadData(f"{self.path} is not empty and holds no backups; choose another folder")
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(self.path / _ABOUT, {"format": FORMAT, "store": identity})

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep a second backup out; raises AlreadyRunning."""
        self._content.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in (*self._content.glob("*.partial"), *self.path.glob(".new-*")):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield
        except BlockingIOError as error:
            raise AlreadyRunning(f"another backup into {self.path} is running") from error
        finally:
            os.close(descriptor)

    def archives(self) -> list[Path]:
        """The finished archives, oldest first; raises PermissionError where nobody may see them."""
        with suppress(FileNotFoundError):
            return sorted(each for each in self._content.iterdir() if each.suffix == ".db")
        return []

    def next_archive(self) -> Path:
        """The path that the next archive gets."""
        known = self.archives()
        return self._content / f"{int(known[-1].stem) + 1 if known else 1:08}.db"

    def backups(self) -> list[Made]:
        """The finished backups, oldest first, but for those that are damaged."""
        return self.looked_through()[0]

    def looked_through(self) -> tuple[list[Made], list[Damaged]]:
        """The finished backups, and those that are damaged; of both the oldest first."""
        made: list[Made] = []
        damaged: list[Damaged] = []
        for name in self._names():
            try:
                made.append(self._made(name))
            except BadData as error:
                damaged.append(Damaged(name, self.path / name, str(error)))
        return made, damaged

    def find(self, name: str | None) -> Made:
        """The backup of this name, or the newest; raises NotFound, or BadData if that one is damaged."""
        known = self._names()
        if not known or name not in (None, *known):
            wanted = f"no backup {name}" if name else "no finished backup"
            raise NotFound(f"there is {wanted} in {self.path}")
        return self._made(name or known[-1])

    def _names(self) -> list[str]:
        return sorted(each.name for each in self.path.iterdir() if _NAME.fullmatch(each.name))

    def _made(self, name: str) -> Made:
        return Made(name, self.path / name, _facts(self.path / name))

    def begin(self) -> Path:
        """A new folder for a backup that is not finished yet."""
        path = self.path / f".new-{os.getpid()}"
        path.mkdir(mode=0o700)
        return path

    def finish(self, begun: Path, facts: Facts) -> Made:
        """From now on it is a backup, named by its second, or by the next one that no other has."""
        write_json(begun / _FACTS, facts._asdict() | {"made_at": facts.made_at.isoformat()})
        second = facts.made_at.astimezone(UTC)
        while (self.path / (name := second.strftime(_STAMP))).exists():
            second += timedelta(seconds=1)
        begun.rename(self.path / name)
        sync(self.path)
        return Made(name, self.path / name, facts)


def _facts(path: Path) -> Facts:
    try:
        read: dict[str, Any] = json.loads((path / _FACTS).read_bytes())
        read["made_at"] = datetime.fromisoformat(read["made_at"])
        return Facts(**{name: read[name] for name in Facts._fields})
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BadData(f"{path / _FACTS} cannot be read; this backup is damaged") from error


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a file whole or not at all."""
    write_whole(path, f"{json.dumps(value, indent=2)}\n".encode(), mode=0o600)


def connected(path: Path, *, writing: bool = False) -> sqlite3.Connection:
    """A connection to one of the files; one thread after another may use it, never two at once."""
    return sqlite3.connect(
        uri(path, writing=writing), uri=True, isolation_level=None, check_same_thread=False
    )


@contextmanager
def attached(file: sqlite3.Connection, path: Path) -> Iterator[None]:
    """One archive beside a copy of the rest, under the name `archive`."""
    file.execute("ATTACH ? AS archive", (uri(path),))
    try:
        yield
    finally:
        file.execute("DETACH archive")


@contextmanager
def legible(path: Path) -> Iterator[None]:
    """Raise BadData, naming this file, where SQLite finds within that it is damaged.

    Raises PermissionError where it may not be read, which SQLite does not tell apart from other trouble.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        if _is_full(error):  # of what is written meanwhile
            raise
        if code_of(error) & 0xFF == sqlite3.SQLITE_CANTOPEN:
            with suppress(FileNotFoundError):
                path.open("rb").close()
        raise BadData(f"{path} cannot be read: {error}") from error


@contextmanager
def filling(path: Path) -> Iterator[None]:
    """Raise StoreFull, naming this folder of backups, where its disk does not take what is written within."""
    try:
        yield
    except (sqlite3.DatabaseError, OSError) as error:
        if not _is_full(error):
            raise
        raise StoreFull(f"the disk of {path} is full; earlier backups are as they were") from error


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return code_of(error) & 0xFF == sqlite3.SQLITE_FULL


def uri(path: Path, *, writing: bool = False) -> str:
    """How SQLite is told to open a file, and to touch nothing beside it."""
    return f"{path.absolute().as_uri()}?{'mode=rw' if writing else 'immutable=1'}"
