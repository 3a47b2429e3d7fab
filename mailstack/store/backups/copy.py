"""A finished backup, opened for reading: the rest of the store, and its content wherever that lies."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from mailstack.errors import BadData, StoreDamaged
from mailstack.store import migrate, schema
from mailstack.store.backups import archive
from mailstack.store.backups.folder import Folder, Made, attached, connected, legible
from mailstack.store.bulk import Stored
from mailstack.store.engine import Database
from mailstack.store.parts import PARTS_A_MESSAGE, content_ids


class Found(NamedTuple):
    """A message of the backup and its content rows, to be read before the next one is asked for."""

    message: Stored
    rows: Iterator[tuple[int, bytes]]


class Copy:
    """The copy of the rest in one SQLite connection, to which archives are attached in turn."""

    def __init__(self, folder: Folder, path: Path, file: sqlite3.Connection) -> None:
        self._folder = folder
        self._path = path
        self._file = file

    def rows(self, query: str, values: Sequence[object] = ()) -> Iterator[Any]:
        """What the copy of the rest has; raises BadData.

        SQLite's own error would be taken for one of the store's, where one is open beside it.
        """
        with legible(self._path):
            # `yield from` would close the cursor of whoever stops early, and find the file closed before it.
            for row in self._file.execute(query, values):  # noqa: UP028
                yield row

    def contents(self, unreadable: list[str]) -> Iterator[Found]:
        """The messages whose ids are in `wanted`, archive by archive; those that none has stay there.

        What one archive has as damaged is looked for in the others first. An archive that cannot be read
        is told in `unreadable` and passed over. Of a message parts of which cannot be read there are
        rows missing.
        """
        remains: dict[int, tuple[Path, Stored]] = {}
        for path in self._folder.archives():
            yield from self._attached(path, self._whole(path, unreadable, remains), unreadable)
        still_wanted = set(self.not_found())
        for number, (path, each) in remains.items():
            if number in still_wanted:
                yield from self._attached(path, self._found([each]), unreadable)

    def want(self, condition: str = "true", *values: object) -> int:
        """Ask for the content of the messages that fit the condition; return how many octets that is."""
        self._file.execute("DROP TABLE IF EXISTS temp.wanted")
        self._file.execute("CREATE TEMP TABLE wanted (id INTEGER PRIMARY KEY, octets, digests)")
        self._file.execute(
            f"INSERT INTO wanted SELECT id, octets, digests FROM message WHERE {condition}", values
        )
        (octets,) = self._file.execute("SELECT coalesce(sum(octets), 0) FROM wanted").fetchone()
        return int(octets)

    def not_found(self) -> list[int]:
        """The messages that were wanted and that no archive had."""
        return [number for (number,) in self._file.execute("SELECT id FROM wanted ORDER BY id")]

    def _attached(self, path: Path, found: Iterator[Found], unreadable: list[str]) -> Iterator[Found]:
        """What is found, while this archive is attached."""
        try:
            with legible(path), attached(self._file, path):
                yield from found
        except BadData as error:
            unreadable.append(str(error))

    def _whole(
        self, path: Path, unreadable: list[str], remains: dict[int, tuple[Path, Stored]]
    ) -> Iterator[Found]:
        """What the attached archive has and not as damaged; that is added to `remains`."""
        listed = self._listed(path, unreadable)
        damaged = self._noted_damaged(path, unreadable)
        remains |= {each.id: (path, each) for each in listed if each.id in damaged}
        yield from self._found(each for each in listed if each.id not in damaged)

    def _found(self, listed: Iterable[Stored]) -> Iterator[Found]:
        for message in listed:
            yield Found(message, self._parts(message))
            self._file.execute("DELETE FROM wanted WHERE id = ?", (message.id,))

    def _listed(self, path: Path, unreadable: list[str]) -> list[Stored]:
        wanted = "SELECT w.id, w.octets, w.digests FROM wanted AS w"
        try:
            with legible(path):
                rows = self._file.execute(f"{wanted} JOIN archive.message USING (id) ORDER BY id").fetchall()
        except BadData as error:
            unreadable.append(str(error))
            first = f"SELECT 1 FROM archive.content AS c WHERE c.id = w.id * {PARTS_A_MESSAGE}"
            rows = self._file.execute(f"{wanted} WHERE EXISTS ({first}) ORDER BY id").fetchall()
        return [Stored(*row) for row in rows]

    def _noted_damaged(self, path: Path, unreadable: list[str]) -> set[int]:
        try:
            with legible(path):
                return archive.noted_damaged(self._file, "archive")
        except BadData as error:
            unreadable.append(str(error))
            return set()

    def _parts(self, message: Stored) -> Iterator[tuple[int, bytes]]:
        for number in content_ids(message.id, message.octets):
            # One by one: a look at what comes next may meet a page that is lost, and costs this one, too.
            # Whoever reads a message sees whether it is whole, and names it.
            rows: list[tuple[int, bytes]] = []
            with suppress(sqlite3.DatabaseError):
                wanted = "SELECT id, octets FROM archive.content WHERE id = ?"
                rows = self._file.execute(wanted, (number,)).fetchall()
            yield from rows


@contextmanager
def as_it_is(folder: Folder, made: Made) -> Iterator[Copy]:
    """The backup at the revision it was made with; raises BadData."""
    path = made.path / "mail.db"
    with legible(path), closing(connected(path)) as file:
        yield Copy(folder, path, file)


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
        try:
            migrate.upgrade(database, lambda said: None)
        except StoreDamaged as error:
            raise BadData(f"{made.path / 'mail.db'} cannot be read: {error.__cause__}") from error
        finally:
            database.dispose()
        with closing(connected(path, writing=True)) as file:
            yield Copy(folder, made.path / "mail.db", file)
