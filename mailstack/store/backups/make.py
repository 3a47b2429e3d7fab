"""Makes a backup while mail flows: nobody waits for it, and what it holds is one moment of the store.

First the content that is new, in short transactions: it never changes, so the moment does not
matter. Then all the rest in one transaction, and in the same one the content that came meanwhile.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, func, select, text

from mailstack.errors import BadData, StoreDamaged, StoreFull, StoreReadOnly, StoreUnavailable
from mailstack.files import sync
from mailstack.store import facts, fitness, migrate, schema
from mailstack.store.backups import archive
from mailstack.store.backups.archive import Writer
from mailstack.store.backups.folder import (
    Facts,
    Folder,
    Made,
    attached,
    connected,
    filling,
    legible,
)
from mailstack.store.bulk import Stored, between, group_after, snapshot
from mailstack.store.clock import now
from mailstack.store.engine import Database
from mailstack.store.inspection import Inspection
from mailstack.store.parts import content_ids, message_of
from mailstack.store.progress import Progress
from mailstack.store.tables import content, message, metadata

_ROWS_A_STEP: Final = 5000


class Backup:
    """One run; `run` yields its progress, afterwards `made` and `damaged` tell how it went."""

    def __init__(self, database: Database, folder: Folder) -> None:
        self._database = database
        self._folder = folder
        self.made: Made | None = None
        self._suspected: dict[int, str] = {}
        self.damaged: list[str] = []
        """Messages that are damaged in the store; what was left of them is in the backup."""
        self.copied = 0
        """Octets of content that this run added."""
        self.unnoted: str | None = None
        """Why the store does not know of this backup, which is good all the same."""

    def run(self) -> Iterator[Progress]:
        """Make the backup; raises BadData, AlreadyRunning, StoreFull, or what disk and database say."""
        with filling(self._folder.path):
            yield from self._steps()
        try:
            with self._database.writing() as connection:
                facts.put(connection, facts.LAST_BACKUP, now())
        except (StoreFull, StoreUnavailable) as error:  # that disk is one to save what is on it
            self.unnoted = str(error)

    def _steps(self) -> Iterator[Progress]:
        self._folder.prepare(self._identity())
        with self._folder.alone():
            with Writer(self._folder) as writer:
                yield from self._new_content(writer)
            begun = self._folder.begin()
            try:
                told = yield from self._rest(begun)
                self.made = self._folder.finish(begun, told)
            finally:
                shutil.rmtree(begun, ignore_errors=True)

    def _identity(self) -> int:
        with self._database.reading() as connection:
            known = facts.get(connection, facts.IDENTITY)
        if known is not None:
            return known
        try:
            fitness.require_writable(self._database)
        except StoreReadOnly:  # never backed up, and now to be saved: its folder takes no later backup
            return facts.new_identity()
        with self._database.writing() as connection:
            return facts.identity(connection)

    def _new_content(self, writer: Writer) -> Iterator[Progress]:
        with _advised():
            last = archive.last_id(self._folder.archives())
            damaged = archive.damaged(self._folder.archives())
        self._once_more(writer, damaged)
        with self._database.reading() as connection:
            total = connection.execute(
                select(func.coalesce(func.sum(message.c.octets), 0)).where(message.c.id > last)
            ).scalar_one()
        while True:
            with snapshot(self._database) as connection:
                group = group_after(connection, last)
            rows = self._together(group)
            if not group:
                return
            if rows is not None:
                self._keep(writer, group, rows)
            else:
                for each in group:
                    self._keep(writer, [each], _one_by_one(self._database.reading, each))
            last = group[-1].id
            yield Progress(self.copied, max(self.copied, int(total)))  # mail goes on coming

    def _once_more(self, writer: Writer, message_ids: Iterable[int]) -> None:
        """Try what was damaged when it was backed up: a cable, a controller or its memory may be mended."""
        wanted = select(message.c.id, message.c.octets, message.c.digests)
        for number in sorted(message_ids):
            with self._database.reading() as connection:
                found = [Stored(*row) for row in connection.execute(wanted.where(message.c.id == number))]
            for each in found:  # or nothing, where it has gone since
                inspection = Inspection(*each)
                for part in _one_by_one(self._database.reading, each):
                    inspection.see(*part)
                if inspection.damage:  # what is left is in an archive already
                    self._suspected[number] = inspection.damage
                else:
                    self._keep(writer, [each], _one_by_one(self._database.reading, each))

    def _together(self, group: Sequence[Stored]) -> list[tuple[int, bytes]] | None:
        """The content of a group in one query; None where that is damaged, or one that may be large."""
        if len(group) < 2:
            return None
        try:
            with self._database.reading() as connection:
                return list(between(connection, group[0].id, group[-1].id))
        except StoreDamaged:
            return None

    def _keep(self, writer: Writer, group: Sequence[Stored], rows: Iterable[tuple[int, bytes]]) -> None:
        """Write messages with their content, looking at it on the way."""
        inspections = {each.id: Inspection(*each) for each in group}

        def inspected() -> Iterator[tuple[int, bytes]]:
            for number, octets in rows:
                if inspection := inspections.get(message_of(number)):
                    inspection.see(number, octets)
                    self.copied += len(octets)
                    yield number, octets

        writer.write(group, inspected())
        for number, inspection in inspections.items():
            if inspection.damage:
                writer.note_damaged(number)
                self._suspected[number] = inspection.damage
        writer.turn()

    def _rest(self, begun: Path) -> Generator[Progress, None, Facts]:
        """Copy all but content into a new store of SQLite; return what there is to say of it."""
        _make_store(begun / "mail.db")
        with (
            closing(connected(begun / "mail.db", writing=True)) as file,
            snapshot(self._database) as connection,
            Writer(self._folder) as writer,
        ):
            yield from _copy_tables(connection, file)
            last_message_id, last_account_id = _last_ids(connection)
            for each in _missing(file, self._folder.archives()):
                self._keep(writer, [each], _one_by_one(lambda: nullcontext(connection), each))
            counted = "SELECT count(*), coalesce(sum(messages), 0), coalesce(sum(octets), 0) FROM account"
            accounts, messages, octets = file.execute(counted).fetchone()
            # What was damaged because it was deleted while we read it is not in the copy.
            there = file.execute(
                "SELECT id FROM message WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
                (json.dumps(list(self._suspected)),),
            )
            self.damaged = [self._suspected[number] for (number,) in there]
        sync(begun / "mail.db")
        return Facts(
            made_at=datetime.now(UTC).replace(microsecond=0),
            revision=schema.HEAD,
            accounts=accounts,
            messages=messages,
            octets=octets,
            last_message_id=last_message_id,
            last_account_id=last_account_id,
        )


def _one_by_one(
    reading: Callable[[], AbstractContextManager[Connection]], message: Stored
) -> Iterator[tuple[int, bytes]]:
    """A message's parts, each in a short transaction; of what is on a lost page there is nothing."""
    for number in content_ids(message.id, message.octets):
        with suppress(StoreDamaged):
            with reading() as connection:
                wanted = select(content.c.octets).where(content.c.id == number)
                octets = connection.execute(wanted).scalar_one_or_none()
            if octets is not None:
                yield number, octets


def _make_store(path: Path) -> None:
    """An empty store in a file that can be carried away: no log beside it."""
    database = Database(f"sqlite:///{path}")
    migrate.upgrade(database, lambda said: None)
    database.dispose()
    with closing(connected(path, writing=True)) as file:
        file.execute("PRAGMA journal_mode=DELETE")
    path.chmod(0o600)
    for left in path.parent.glob(path.name + "-*"):
        left.unlink()


def _copy_tables(connection: Connection, file: sqlite3.Connection) -> Iterator[Progress]:
    """Every row of every table but the content; the file is complete or thrown away."""
    for statement in ("PRAGMA journal_mode=OFF", "PRAGMA synchronous=OFF", "BEGIN"):
        file.execute(statement)
    tables = [table for table in metadata.sorted_tables if table is not content]
    counted = {table: connection.scalar(select(func.count()).select_from(table)) or 0 for table in tables}
    done, total = 0, sum(counted.values())
    for table in tables:
        file.execute(f"DELETE FROM {table.name}")  # what the migrations put there is this store's own
        columns = ", ".join(column.name for column in table.columns)
        marks = ", ".join("?" for _ in table.columns)
        found = connection.execute(select(table), execution_options={"yield_per": _ROWS_A_STEP})
        for rows in found.partitions():
            file.executemany(f"INSERT INTO {table.name} ({columns}) VALUES ({marks})", map(tuple, rows))
            done += len(rows)
            yield Progress(done, total)
    file.execute("COMMIT")


def _last_ids(connection: Connection) -> tuple[int, int]:
    """The highest ids that were ever given to a message and to an account."""
    if connection.dialect.name == "sqlite":
        rows = connection.execute(text("SELECT name, seq FROM sqlite_sequence"))
        given = {row.name: row.seq for row in rows}
    else:
        given = {
            name: connection.execute(text(f"SELECT last_value FROM {name}_id_seq")).scalar_one()
            for name in ("message", "account")
        }
    return given.get("message", 0), given.get("account", 0)


def _missing(file: sqlite3.Connection, archives: Sequence[Path]) -> list[Stored]:
    """The messages of the copy whose content is in no archive; raises BadData where one contradicts it."""
    file.execute("CREATE TEMP TABLE missing AS SELECT id, octets, digests FROM message")
    file.execute("CREATE UNIQUE INDEX temp.missing_id ON missing (id)")
    for path in archives:
        with _advised(), legible(path), attached(file, path):
            (other,) = file.execute(_CONTRADICTIONS).fetchone()
            if other is not None:
                raise BadData(f"{path} has another message {other} than the store")
            file.execute("DELETE FROM missing WHERE id IN (SELECT id FROM archive.message)")
    return [Stored(*row) for row in file.execute("SELECT id, octets, digests FROM missing ORDER BY id")]


@contextmanager
def _advised() -> Iterator[None]:
    try:
        yield
    except BadData as error:
        raise BadData(f"{error}; back up into a new folder") from error


_CONTRADICTIONS: Final = """
SELECT min(ours.id) FROM missing AS ours JOIN archive.message AS theirs ON theirs.id = ours.id
WHERE ours.octets <> theirs.octets OR ours.digests <> theirs.digests
"""
