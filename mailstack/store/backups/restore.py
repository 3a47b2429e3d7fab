"""Restores a whole store from a backup, into a database that has no mail yet, of either kind.

Unique-ids stay as they are. Every account gets a uid validity that none ever had: the numbers that
were given out between the backup and the loss must not be given to other messages (RFC 1939 §7).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Boolean, Connection, Table, delete, exists, insert, select, text, update

from mailstack.errors import AlreadyThere, BadData
from mailstack.store import accounts
from mailstack.store.backups import archive
from mailstack.store.backups.copy import Copy, upgraded
from mailstack.store.backups.folder import Folder, Made
from mailstack.store.clock import now
from mailstack.store.engine import Database
from mailstack.store.inspection import Inspection
from mailstack.store.progress import Progress
from mailstack.store.tables import account, content, domain, message, metadata

_STEP_OCTETS: Final = 8 * 1024 * 1024
_ROWS_A_STEP: Final = 5000


class Restoration:
    """One restore of everything; `run` yields its progress, afterwards `findings` tells what was lost."""

    def __init__(self, database: Database, folder: Folder, made: Made, working: Path) -> None:
        self._database = database
        self._folder = folder
        self._made = made
        self._working = working
        self._damaged: dict[int, str] = {}
        self._lost: list[int] = []
        self._unreadable: list[str] = []

    @property
    def findings(self) -> list[str]:
        """The messages that the backup does not have whole; their entries are there, RETR names them."""
        lost = (f"message {number} is in no archive" for number in self._lost)
        return [*self._unreadable, *self._damaged.values(), *lost]

    def run(self) -> Iterator[Progress]:
        """Fill the database; raises AlreadyThere unless it is without domains and mail."""
        with self._database.writing() as connection:
            _refuse_filled(connection)
            connection.execute(delete(content))  # of a restore that was cut off
        with upgraded(self._folder, self._made, self._working) as copy:
            yield from self._content(copy)
            # All at once: until now there was no account, and nobody could see half a store.
            with self._database.writing() as connection:
                _refuse_filled(connection)
                self._rest(connection, copy)

    def _content(self, copy: Copy) -> Iterator[Progress]:
        total, done = copy.want(), 0
        rows: list[dict[str, Any]] = []
        octets_held = 0
        for found, parts in copy.contents(self._unreadable):
            inspection = Inspection(*found)
            for number, octets in parts:
                inspection.see(number, octets)
                rows.append({"id": number, "octets": octets})
                octets_held += len(octets)
                if octets_held >= _STEP_OCTETS:
                    self._insert(rows)
                    rows, octets_held = [], 0
            if inspection.damage:
                self._damaged[found.id] = inspection.damage
            done += found.octets
            yield Progress(done, total)
        self._insert(rows)
        self._lost = copy.not_found()

    def _insert(self, rows: list[dict[str, Any]]) -> None:
        if rows:
            with self._database.writing() as connection:
                connection.execute(insert(content), rows)

    def _rest(self, connection: Connection, copy: Copy) -> None:
        tables = [table for table in metadata.sorted_tables if table is not content]
        for table in reversed(tables):
            connection.execute(delete(table))  # `init` made a domain
        for table in tables:
            _copy_table(connection, copy, table)
        last = self._made.facts.last_message_id
        for path in self._folder.archives():
            with suppress(BadData):  # of one that cannot be read it has been told
                last = max(last, archive.last_id([path]))
        _continue_numbering(connection, last, self._made.facts.last_account_id)
        accounts.renew_uid_validities(connection)
        harmed = [*self._damaged, *self._lost]
        for start in range(0, len(harmed), _ROWS_A_STEP):
            here = message.c.id.in_(harmed[start : start + _ROWS_A_STEP])
            connection.execute(update(message).where(here).values(damaged_at=now()))


def _refuse_filled(connection: Connection) -> None:
    for table, what in ((account, "accounts"), (message, "mail")):
        if connection.execute(select(exists().select_from(table))).scalar_one():
            raise AlreadyThere(
                f"the database has {what} already, and a whole restore needs an empty one:"
                " stop the server, move the database away, of mail.db its mail.db-wal too, and say this"
                " again; or restore one account"
            )


def _copy_table(connection: Connection, copy: Copy, table: Table) -> None:
    order = " ORDER BY alias_of IS NOT NULL" if table is domain else ""
    flags = {column.name for column in table.columns if isinstance(column.type, Boolean)}
    names = [column.name for column in table.columns]
    found = copy.rows(f"SELECT {', '.join(names)} FROM {table.name}{order}")
    while rows := list(islice(found, _ROWS_A_STEP)):
        connection.execute(
            insert(table),
            [
                {
                    name: bool(value) if name in flags else value
                    for name, value in zip(names, row, strict=True)
                }
                for row in rows
            ],
        )


def _continue_numbering(connection: Connection, last_message_id: int, last_account_id: int) -> None:
    """New rows get numbers beyond all that the backups know, which a later backup may meet again."""
    last = {"message": last_message_id, "account": last_account_id}
    if connection.dialect.name == "sqlite":
        for name, number in last.items():
            connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": name})
            connection.execute(
                text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :seq)"),
                {"name": name, "seq": number},
            )
        return
    for name in ("message", "account", "domain", "alias", "event", "leftover"):
        highest = f"greatest({last.get(name, 0)}, (SELECT coalesce(max(id), 0) FROM {name}))"
        connection.execute(text(f"SELECT setval('{name}_id_seq', {highest} + 1, false)"))
