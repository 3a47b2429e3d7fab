"""A finished backup, opened for reading: the rest of the store, and its content wherever that lies."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from mailstack.errors import BadData
from mailstack.store import migrate, schema
from mailstack.store.backups.archive import parts
from mailstack.store.backups.folder import Folder, Made, attached, connected
from mailstack.store.bulk import Stored
from mailstack.store.engine import Database


class Found(NamedTuple):
    """A message of the backup and its content rows, to be read before the next one is asked for."""

    message: Stored
    rows: Iterator[tuple[int, bytes]]


class Copy:
    """The copy of the rest in one SQLite connection, `file`, to which archives are attached in turn."""

    def __init__(self, folder: Folder, file: sqlite3.Connection) -> None:
        self.file = file
        self._folder = folder

    def contents(self, unreadable: list[str] | None = None) -> Iterator[Found]:
        """The messages whose ids are in `wanted`, archive by archive; those that none has stay there.

        An archive that cannot be read is told in `unreadable` and passed over, or raises BadData.
        """
        for path in self._folder.archives():
            try:
                with attached(self.file, path):
                    yield from self._in_archive()
            except sqlite3.DatabaseError as error:
                said = f"{path} cannot be read: {error}"
                if unreadable is None:
                    raise BadData(said) from error
                unreadable.append(said)

    def want(self, condition: str = "true", *values: object) -> int:
        """Ask for the content of the messages that fit the condition; return how many octets that is."""
        self.file.execute("DROP TABLE IF EXISTS temp.wanted")
        self.file.execute("CREATE TEMP TABLE wanted (id INTEGER PRIMARY KEY, octets, digests)")
        self.file.execute(
            f"INSERT INTO wanted SELECT id, octets, digests FROM message WHERE {condition}", values
        )
        (octets,) = self.file.execute("SELECT coalesce(sum(octets), 0) FROM wanted").fetchone()
        return int(octets)

    def not_found(self) -> list[int]:
        """The messages that were wanted and that no archive had."""
        return [number for (number,) in self.file.execute("SELECT id FROM wanted ORDER BY id")]

    def _in_archive(self) -> Iterator[Found]:
        here = self.file.execute(
            "SELECT id, w.octets, w.digests FROM wanted AS w JOIN archive.message USING (id) ORDER BY id"
        ).fetchall()
        for row in here:
            message = Stored(*row)
            yield Found(message, parts(self.file, message.id))
            self.file.execute("DELETE FROM wanted WHERE id = ?", (message.id,))


@contextmanager
def as_it_is(folder: Folder, made: Made) -> Iterator[Copy]:
    """The backup at the revision it was made with; raises BadData."""
    try:
        with closing(connected(made.path / "mail.db")) as file:
            yield Copy(folder, file)
    except sqlite3.DatabaseError as error:
        raise BadData(f"{made.path / 'mail.db'} cannot be read: {error}") from error


@contextmanager
def upgraded(folder: Folder, made: Made, working: Path) -> Iterator[Copy]:
    """The backup at this program's revision, in a passing copy below `working` where it was older."""
    if made.facts.revision == schema.HEAD:
        with as_it_is(folder, made) as copy:
            yield copy
        return
    with tempfile.TemporaryDirectory(dir=working, prefix="restore-") as place:
        path = Path(shutil.copy(made.path / "mail.db", place))
        database = Database(f"sqlite:///{path}")
        migrate.upgrade(database, lambda said: None)
        database.dispose()
        with closing(connected(path, writing=True)) as file:
            yield Copy(folder, file)
