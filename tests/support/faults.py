"""A driver that fails where it is told to: every statement and every COMMIT of a database is a point.

The database is real and so is what SQLAlchemy makes of the failure; only the driver's connection is
a double, which counts what it is asked and fails once. So all points of some work are found by
doing it again and again with the failure one point further on, until it comes through.
"""

from __future__ import annotations

import enum
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from sqlalchemy import event

from mailstack.store.engine import Database

T = TypeVar("T")

_PING = ";"
"""SQLAlchemy asks a pooled connection whether it lives, and makes another one where it does not."""


class Kind(enum.Enum):
    """How a point fails."""

    REFUSED = "refused"
    """Nothing is done, and the transaction is as it was."""
    UNDONE = "undone"
    """Nothing is done, and the transaction is rolled back: as SQLite does by itself on a full disk."""
    UNHEARD = "unheard"
    """It is done, but the answer is an error: a COMMIT may be on the disk, and nobody knows."""
    CUT = "cut"
    """The connection is gone, and with it what was not committed."""


class Faults:
    """Counts a database's points from the moment it is armed; fails at one of them, once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._armed = False
        self._at, self._kind = -1, Kind.REFUSED
        self.points: list[str] = []
        """What was asked since, in order."""
        self.struck: str | None = None
        """The statement that failed."""
        event.listen(database.engine, "do_connect", self._connect)
        database.dispose()  # what was connected before is no double

    @contextmanager
    def at(self, number: int, kind: Kind) -> Iterator[Faults]:
        """Fail at the point of this number, 0 being the first one in the block."""
        with self._lock:
            self.points, self.struck = [], None
            self._armed, self._at, self._kind = True, number, kind
        try:
            yield self
        finally:
            self._armed = False

    def point(self, double: Any, what: str, ask: Callable[[], T]) -> T:
        """The doubles come by here with everything that they are asked."""
        if what == _PING:
            return ask()
        with self._lock:
            number = len(self.points)
            if self._armed:
                self.points.append(what)
            if not self._armed or number != self._at:
                fails = False
            else:
                fails, self.struck = True, what
        if not fails:
            return ask()
        if self._kind is Kind.UNHEARD:
            double.forget(ask())
        elif self._kind is Kind.UNDONE:
            double.undo()
        elif self._kind is Kind.CUT:
            double.cut()
        raise double.error(f"a fault was injected at {what!r}")

    def _connect(self, dialect: Any, _record: object, arguments: Any, options: Any) -> Any:
        if self._database.is_sqlite:
            made = sqlite3.connect(*arguments, **options, factory=_SQLiteDouble)
        else:
            made = _PostgresqlDouble.connect(*arguments, **options, cursor_factory=_PostgresqlCursor)
        made.faults = self
        return made


class _SQLiteCursor(sqlite3.Cursor):
    def execute(self, statement: str, *parameters: Any) -> Any:
        ask = super().execute
        return _reached(self.connection, statement, lambda: ask(statement, *parameters))

    def executemany(self, statement: str, rows: Any) -> Any:
        ask = super().executemany
        return _reached(self.connection, statement, lambda: ask(statement, rows))


class _SQLiteDouble(sqlite3.Connection):
    faults: Faults | None = None

    def cursor(self, factory: Any = _SQLiteCursor) -> Any:
        return super().cursor(factory)

    def execute(self, statement: str, *parameters: Any) -> Any:
        return self.cursor().execute(statement, *parameters)

    def commit(self) -> None:
        _reached(self, "COMMIT", super().commit)

    def blobopen(self, *place: Any, **options: Any) -> Any:
        ask = super().blobopen
        if options.get("readonly"):
            return ask(*place, **options)
        return _Blob(self, _reached(self, "open a value", lambda: ask(*place, **options)))

    def forget(self, answer: Any) -> None:
        if answer is not None:
            answer.close()  # as a statement is that failed: it reads no more

    def undo(self) -> None:
        super().rollback()

    def cut(self) -> None:
        super().rollback()  # closing alone leaves that to whoever has the last of its statements
        super().close()

    @staticmethod
    def error(said: str) -> Exception:
        made = sqlite3.OperationalError(said)
        made.sqlite_errorcode = sqlite3.SQLITE_IOERR  # type: ignore[attr-defined]
        return made


class _Blob:
    """A value that is written in pieces: each is a point."""

    def __init__(self, double: _SQLiteDouble, real: sqlite3.Blob) -> None:
        self._double, self._real = double, real

    def write(self, piece: Any) -> None:
        _reached(self._double, "write a value", lambda: self._real.write(piece))

    def __enter__(self) -> _Blob:
        return self

    def __exit__(self, *_: object) -> None:
        self._real.close()


class _PostgresqlCursor(psycopg.Cursor[Any]):
    def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
        ask = super().execute
        return _reached(self.connection, str(query), lambda: ask(query, *arguments, **options))

    def executemany(self, query: Any, *arguments: Any, **options: Any) -> Any:
        ask = super().executemany
        return _reached(self.connection, str(query), lambda: ask(query, *arguments, **options))


class _PostgresqlDouble(psycopg.Connection[Any]):
    faults: Faults | None = None

    def commit(self) -> None:
        _reached(self, "COMMIT", super().commit)

    def forget(self, answer: Any) -> None:
        """A cursor has all rows already, and keeps nothing busy."""

    def undo(self) -> None:
        super().rollback()

    def cut(self) -> None:
        self.pgconn.finish()

    @staticmethod
    def error(said: str) -> Exception:
        return psycopg.OperationalError(said)


def _reached(double: Any, what: str, ask: Callable[[], T]) -> T:
    faults: Faults | None = double.faults
    return ask() if faults is None else faults.point(double, what, ask)
