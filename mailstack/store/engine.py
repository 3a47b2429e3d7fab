"""The database as the rest of the store sees it: a place to read, and a place to write.

SQLite and PostgreSQL differ in how a transaction begins, who may write, and what an error looks
like; this file and those named for them know that, and nothing above does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from mailstack.errors import StoreUnavailable
from mailstack.store import driver_errors, postgresql, sqlite, writeback
from mailstack.store.turnstile import Turnstile
from mailstack.store.url import parsed

_CONNECTIONS: Final = 8
"""How many are kept; as many again are opened where they are needed at once."""


class Database:
    """One database and its pooled connections; safe to use from any thread."""

    def __init__(self, url: str, *, may_only_read: bool = False) -> None:
        """`may_only_read`: for a command, which on a disk that takes nothing does what it can."""
        self.url = parsed(url)
        self.is_sqlite: Final = self.url.get_backend_name() == "sqlite"
        self.engine = (
            sqlite.engine_of(self.url, _CONNECTIONS, may_only_read=may_only_read)
            if self.is_sqlite
            else postgresql.engine_of(self.url, _CONNECTIONS)
        )
        self.pen: Final[AbstractContextManager[None]] = (
            Turnstile(str(self.url.database)) if self.is_sqlite else nullcontext()
        )
        """Whoever writes holds it: PostgreSQL lets many write at once, SQLite's is handed round in order."""
        self._at_pen: Connection | None = None  # SQLite's connection of whoever holds the pen

    @property
    def path(self) -> str | None:
        """The database file, or None where the database is a server."""
        return self.url.database if self.is_sqlite else None

    @property
    def octets(self) -> int:
        """The size of the database file, without its log; 0 where there is none."""
        return sqlite.octets_of(self.path) if self.path else 0

    def require_file_of_log(self) -> None:
        """Raise StoreUnavailable where SQLite's file is not there, but its log is, which may hold mail."""
        if self.path:
            sqlite.require_file_of_log(self.path)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection in a read transaction, which ends with the block: keep it short."""
        with self.translated(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection in a write transaction: committed and synced when the block ends, else undone."""
        with self.translated(), self.pen:
            if self.is_sqlite:
                yield from self._written_at_pen()
            else:
                with self.engine.begin() as connection:
                    yield connection

    def _written_at_pen(self) -> Iterator[Connection]:
        """SQLite's connection is kept, for all of its page cache is still true next time.

        SQLAlchemy would take longer to begin and to commit than a small batch takes to be written.
        """
        connection, self._at_pen = self._at_pen, None
        if connection is None:
            connection = sqlite.connected_to_write(self.engine, self.octets)
        with sqlite.given_up_on_error(connection):
            driver = sqlite.driver_of(connection)
            # Whoever begins as a reader may find its snapshot stale when it writes, and be refused.
            driver.execute("BEGIN IMMEDIATE")
            yield connection
            if connection.in_transaction():  # SQLAlchemy has noticed
                connection.commit()
            else:
                driver.commit()
        self._at_pen = connection

    def checkpoint(self, kind: str) -> bool:
        """Copy the write-ahead log back (SQLite's PASSIVE, or RESTART, which waits for its turn).

        False: somebody was in the way, who copies, too, or reads from the log still.
        PASSIVE waits for the disk, too: where somebody writes meanwhile, SQLite leaves that to the RESTART,
        for which all who write have to wait.
        """
        return not self._checkpoint(kind).busy

    def copy_log(self) -> bool:
        """As PASSIVE does; whether nothing was left to copy."""
        done = self._checkpoint("PASSIVE")
        return not done.busy and done.copied == done.logged

    def _checkpoint(self, kind: str) -> sqlite.Checkpoint:
        with self.translated(), self.pen if kind != "PASSIVE" else nullcontext():
            connection = self.engine.raw_connection()
            try:
                done = sqlite.checkpoint(connection.cursor(), kind)
                if kind == "PASSIVE":
                    self._sync()
                return done
            except BaseException:
                connection.invalidate()  # nobody else wants one that waits for so short a time
                raise
            finally:
                connection.close()

    def _sync(self) -> None:
        try:
            writeback.finish(str(self.path))
        except OSError as error:
            raise StoreUnavailable(f"the database {self.path} cannot be synced: {error.strerror}") from error

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn a driver's error into the fact that the floors above know."""
        driver = self.engine.dialect.loaded_dbapi
        try:
            yield
        except (IntegrityError, driver.IntegrityError):
            raise  # a row that contradicts another one is its job's own fault
        except DBAPIError as error:
            raise driver_errors.fact(error.orig, self.path) from error
        except driver.Error as error:  # of a statement that went past SQLAlchemy
            raise driver_errors.fact(error, self.path) from error
        except PoolTimeout as error:
            raise StoreUnavailable("every database connection is busy") from error

    def dispose(self) -> None:
        """Close every connection that nobody uses."""
        connection, self._at_pen = self._at_pen, None
        if connection is not None:
            connection.close()
        self.engine.dispose()
        if isinstance(self.pen, Turnstile):
            self.pen.close()


class Reading:
    """One thread's read transactions, one after the other.

    SQLite's connection is kept in between, for to ask for it again costs several times what the transaction
    does; and each of these transactions sees one moment.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: Connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection in a transaction, which ends with the block: keep it short."""
        if not self._database.is_sqlite:
            with self._database.reading() as connection:
                yield connection
            return
        with self._database.translated():
            connection, self._kept = self._kept or sqlite.connected_to_read(self._database.engine), None
            driver = sqlite.driver_of(connection)
            try:
                driver.execute("BEGIN")
                yield connection
                connection.rollback()
                driver.rollback()
            except BaseException:
                connection.close()
                raise
            self._kept = connection

    def close(self) -> None:
        """Give the connection back."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None
