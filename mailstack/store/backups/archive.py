"""One archive: some thousand messages with their content, in a SQLite file that is written once.

Of a message that was damaged when it was backed up it has what was left, and the number in a table
`damaged`, which no other archive has; a later one may have that message whole.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from mailstack.files import publish
from mailstack.store.backups.folder import Folder, connected, legible
from mailstack.store.bulk import Stored
from mailstack.store.parts import content_id
from mailstack.store.sqlite import PAGE_OCTETS

ARCHIVE_OCTETS: Final = 256 * 1024 * 1024
"""How much content an archive takes before the next is begun: what a backup that is cut off loses."""

_SCHEMA: Final = (
    f"PRAGMA page_size={PAGE_OCTETS}",
    "PRAGMA journal_mode=OFF",  # a file that is not finished is thrown away
    "PRAGMA synchronous=OFF",  # it is synced once, before it gets its name
    "CREATE TABLE message (id INTEGER PRIMARY KEY, octets INTEGER NOT NULL, digests BLOB)",
    "CREATE TABLE content (id INTEGER PRIMARY KEY, octets BLOB NOT NULL)",
    "BEGIN",
)


class Writer:
    """Writes archives one after the other; what it holds is not there before `close`."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._file: sqlite3.Connection | None = None
        self._path = Path()
        self._octets = 0

    def write(self, messages: Iterable[Stored], parts: Iterable[tuple[int, bytes]]) -> None:
        """Add messages, and content rows (`id`, octets) that are wholly theirs."""
        file = self._opened()
        file.executemany("INSERT INTO message VALUES (?, ?, ?)", messages)
        for number, octets in parts:
            file.execute("INSERT INTO content VALUES (?, ?)", (number, octets))
            self._octets += len(octets)

    def note_damaged(self, message_id: int) -> None:
        """Of this message, which was written last, not everything is there as it was."""
        file = self._opened()
        file.execute("CREATE TABLE IF NOT EXISTS damaged (id INTEGER PRIMARY KEY)")
        file.execute("INSERT INTO damaged VALUES (?)", (message_id,))

    def turn(self) -> None:
        """Finish the archive if it is large enough; call it only between messages."""
        if self._octets >= ARCHIVE_OCTETS:
            self.close()

    def close(self) -> None:
        """Finish what has been begun: from now on it is an archive."""
        if self._file is None:
            return
        self._file.execute("COMMIT")
        self._file.close()
        self._file, self._octets = None, 0
        publish(self._path.with_suffix(".partial"), self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        elif self._file is not None:
            self._file.close()

    def _opened(self) -> sqlite3.Connection:
        if self._file is None:
            self._path = self._folder.next_archive()
            os.close(os.open(self._path.with_suffix(".partial"), os.O_CREAT | os.O_EXCL, 0o600))
            self._file = connected(self._path.with_suffix(".partial"), writing=True)
            for statement in _SCHEMA:
                self._file.execute(statement)
        return self._file


def last_id(archives: Sequence[Path]) -> int:
    """The highest message id in any of the archives; raises BadData."""
    highest = 0
    for path in archives:
        with legible(path), closing(connected(path)) as file:
            (found,) = file.execute("SELECT max(id) FROM message").fetchone()
            highest = max(highest, found or 0)
    return highest


def damaged(archives: Sequence[Path]) -> set[int]:
    """The messages that archives have, and none of them whole; raises BadData."""
    found: set[int] = set()
    for path in archives:
        with legible(path), closing(connected(path)) as file:
            found |= noted_damaged(file)
    for path in archives:
        found -= whole(path, found)
    return found


def whole(path: Path, message_ids: Collection[int]) -> set[int]:
    """Those of the messages that an archive has, and not as damaged; raises BadData."""
    if not message_ids:
        return set()
    with legible(path), closing(connected(path)) as file:
        wanted = "SELECT id FROM message WHERE id IN (SELECT value FROM json_each(?))"
        found = {number for (number,) in file.execute(wanted, (json.dumps(list(message_ids)),))}
        return found - noted_damaged(file)


def noted_damaged(file: sqlite3.Connection, name: str = "main") -> set[int]:
    """The messages that the archive attached under this name has as damaged."""
    if not file.execute(f"SELECT 1 FROM {name}.sqlite_master WHERE name = 'damaged'").fetchone():
        return set()
    return {number for (number,) in file.execute(f"SELECT id FROM {name}.damaged")}


def parts(file: sqlite3.Connection, message_id: int) -> Iterator[tuple[int, bytes]]:
    """The content rows of a message, in order, as the attached archive has them."""
    yield from file.execute(
        "SELECT id, octets FROM archive.content WHERE id >= ? AND id < ? ORDER BY id",
        (content_id(message_id), content_id(message_id + 1)),
    )
