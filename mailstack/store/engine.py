"""The database as the rest of the store sees it: a place to read, and a place to write.

SQLite and PostgreSQL differ in how a transaction begins, who may write, and what an error looks
like; this file knows that, and nothing above it does.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from mailstack.errors import (
    BadSetting,
    StoreContended,
    StoreCutOff,
    StoreDamaged,
    StoreFull,
    StoreUnavailable,
)
from mailstack.store import writeback
from mailstack.store.turnstile import Turnstile

# Of a new file. With half of it content of 50 KB costs a fifth more CPU time to write, and half as much
# again to read; with twice that, small messages cost more.
PAGE_OCTETS: Final = 16 * 1024
_CACHE_OCTETS: Final = 8 * 1024 * 1024  # of pages in memory, a connection
# The one that writes keeps them from one transaction to the next. In a large store these are many: the
# last page of each maildrop.
_WRITING_CACHE_SHARE: Final = 128
_WRITING_CACHE_OCTETS: Final = 32 * 1024 * 1024
# A reader thread's: content passes through it once, and pages that are used again soon are in the
# processor's cache still.
_READING_CACHE_OCTETS: Final = 512 * 1024
# From here on SQLite copies its log back itself, inside a commit. The service does so before, beside its
# writer; this is for whoever writes without one.
_LOG_OCTETS: Final = 128 * 1024 * 1024
_BUSY_MILLISECONDS: Final = 10_000
# The log begins anew once nobody reads from it. What the service reads takes a few milliseconds, but the
# copy before an upgrade, say, has one moment before it for minutes, and whoever writes waits for neither.
_RESTART_MILLISECONDS: Final = 50
_CONNECTIONS: Final = 8
_BEGUN: Final = "mailstack_begun"
_CONTENDED: Final = ("40P01", "40001")  # PostgreSQL: a deadlock was detected, serialization failed
_CUT_OFF: Final = ("57P01", "57P02", "08006")  # PostgreSQL: its end, a crash of another session, the network
_CORRUPTED: Final = ("XX001", "XX002")  # PostgreSQL: data, or an index, is corrupted
_UNREADABLE: Final = (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_CORRUPTFS)  # a sector is lost, say

# These only take effect on a file without tables, and before WAL is switched on. Later they would do
# harm: auto_vacuum=INCREMENTAL takes the write lock even where it has nothing to change, and so no
# connection could be opened, not even to read, while another process writes.
_NEW_FILE_PRAGMAS: Final = (f"PRAGMA page_size={PAGE_OCTETS}", "PRAGMA auto_vacuum=INCREMENTAL")

# journal_mode=WAL needs the write lock once in a file's life and is a look-up ever after.
_PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    f"PRAGMA cache_size=-{_CACHE_OCTETS // 1024}",
    "PRAGMA temp_store=MEMORY",
    # Debian's SQLite fills what is deleted with zeros, by way of the log: to delete a message then costs
    # as much as to store it. FAST does so only within pages that are written anyway.
    "PRAGMA secure_delete=FAST",
    f"PRAGMA journal_size_limit={_LOG_OCTETS}",
)

# Of a value of another type than int, float, str and bytearray that has no adapter, the driver asks both
# sides for one, and makes and drops an error: as long as half of an INSERT's other work for five values.
sqlite3.register_adapter(bytes, bytes)
sqlite3.register_adapter(bool, int)


class Database:
    """One database and its pooled connections; safe to use from any thread."""

    def __init__(self, url: str) -> None:
        self.url = _parsed(url)
        self.is_sqlite: Final = self.url.get_backend_name() == "sqlite"
        self.engine = _sqlite_engine(self.url) if self.is_sqlite else _postgresql_engine(self.url)
        # PostgreSQL lets many write at once; SQLite has one pen, handed round in order.
        self._pen: AbstractContextManager[None] = (
            Turnstile(str(self.url.database)) if self.is_sqlite else nullcontext()
        )
        self._at_pen: Connection | None = None  # SQLite's connection of whoever holds the pen

    @property
    def path(self) -> str | None:
        """The database file, or None where the database is a server."""
        return self.url.database if self.is_sqlite else None

    @property
    def octets(self) -> int:
        """The size of the database file, without its log; 0 where there is none."""
        with suppress(FileNotFoundError):
            return os.stat(self.path).st_size if self.path else 0
        return 0

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection in a read transaction, which ends with the block: keep it short."""
        with self.translated(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection in a write transaction: committed and synced when the block ends, else undone."""
        with self.translated(), self._pen:
            if self.is_sqlite:
                yield from self._written_at_pen()
            else:
                with self.engine.begin() as connection:
                    yield connection

    def _written_at_pen(self) -> Iterator[Connection]:
        """SQLite's connection is kept, for all of its page cache is still true next time.

        SQLAlchemy would take longer to begin and to commit than a small batch takes to be written.
        """
        connection, self._at_pen = self._at_pen or self._connected_to_write(), None
        with given_up_on_error(connection):
            driver = driver_of(connection)
            # Whoever begins as a reader may find its snapshot stale when it writes, and be refused.
            driver.execute("BEGIN IMMEDIATE")
            yield connection
            if connection.in_transaction():  # SQLAlchemy has noticed
                connection.commit()
            else:
                driver.commit()
        self._at_pen = connection

    def _connected_to_write(self) -> Connection:
        wanted = min(self.octets // _WRITING_CACHE_SHARE, _WRITING_CACHE_OCTETS)
        return _connected_to_begin(self.engine, max(wanted, _CACHE_OCTETS))

    def checkpoint(self, kind: str) -> bool:
        """Copy the write-ahead log back (SQLite's PASSIVE, or RESTART, which waits for its turn).

        False: somebody was in the way, who copies, too, or reads from the log still.
        PASSIVE waits for the disk, too: where somebody writes meanwhile, SQLite leaves that to the RESTART,
        for which all who write have to wait.
        """
        with self.translated(), self._pen if kind != "PASSIVE" else nullcontext():
            connection = self.engine.raw_connection()
            try:
                cursor = connection.cursor()
                cursor.execute(f"PRAGMA busy_timeout={_RESTART_MILLISECONDS}")
                ((busy, _, _),) = cursor.execute(f"PRAGMA wal_checkpoint({kind})").fetchall()
                cursor.execute(f"PRAGMA busy_timeout={_BUSY_MILLISECONDS}")
                if kind == "PASSIVE":
                    self._sync()
                return not busy
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
            raise _fact(error.orig, self.path) from error
        except driver.Error as error:  # of a statement that went past SQLAlchemy
            raise _fact(error, self.path) from error
        except PoolTimeout as error:
            raise StoreUnavailable("every database connection is busy") from error

    def dispose(self) -> None:
        """Close every connection that nobody uses."""
        connection, self._at_pen = self._at_pen, None
        if connection is not None:
            connection.close()
        self.engine.dispose()
        if isinstance(self._pen, Turnstile):
            self._pen.close()


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
            connection, self._kept = self._kept or self._connected(), None
            driver = driver_of(connection)
            try:
                driver.execute("BEGIN")
                yield connection
                connection.rollback()
                driver.rollback()
            except BaseException:
                connection.close()
                raise
            self._kept = connection

    def _connected(self) -> Connection:
        return _connected_to_begin(self._database.engine, _READING_CACHE_OCTETS)

    def close(self) -> None:
        """Give the connection back."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None


def reusable_octets(connection: Connection) -> int:
    """How many octets of a SQLite file belong to nothing and will be written again; else 0."""
    if connection.dialect.name != "sqlite":
        return 0
    pages: int = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
    return pages * page_octets(connection)


def page_octets(connection: Connection) -> int:
    """The size of a page of this SQLite file, which it has had from its first day."""
    octets: int = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
    return octets


def _fact(error: BaseException | None, path: str | None) -> StoreUnavailable | StoreFull:
    text = " ".join(str(error).split())
    if getattr(error, "sqlstate", None) in _CONTENDED:
        return StoreContended(f"the database refused: {text}")
    if _is_cut_off(error):
        return StoreCutOff(f"the database cannot be reached: {text}")
    if getattr(error, "sqlstate", None) in _CORRUPTED:
        return StoreDamaged(f"the database is damaged ({text}); restore it from a backup")
    # What the module itself complains of, a closed database say, comes without a code of SQLite's.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    if code & 0xFF == sqlite3.SQLITE_FULL:
        return StoreFull("the disk of the database is full")
    if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or code in _UNREADABLE:
        return StoreDamaged(f"the database {path} is damaged ({text}); restore it from a backup")
    if code & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        return StoreUnavailable(
            f"the database {path} cannot be written: its folder must exist, belong to the server and not"
            f" lie on a read-only disk ({text})"
        )
    return StoreUnavailable(f"the database refused: {text}")


def _is_cut_off(error: BaseException | None) -> bool:
    """PostgreSQL may have said so; what the driver noticed by itself comes without a number."""
    state = getattr(error, "sqlstate", "")
    return state in _CUT_OFF or (state is None and type(error).__name__ == "OperationalError")


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise BadSetting(f"database_url is not a URL: {url!r}") from error
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise BadSetting(
            f"database_url names {parsed.drivername}: mailstack keeps mail in sqlite or postgresql"
        )
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database:
            raise BadSetting("database_url names no file: write sqlite:////var/lib/mailstack/mail.db")
        # SQLite's log lies beside the file itself, not beside a link to it; so does the room that is left.
        parsed = parsed.set(database=os.path.realpath(parsed.database))
    return parsed


def _sqlite_engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        # Python's sqlite3 would begin transactions by guesswork; we say BEGIN ourselves.
        connect_args={
            "isolation_level": None,
            "check_same_thread": False,
            "timeout": _BUSY_MILLISECONDS / 1000,
        },
        pool_size=_CONNECTIONS,
        max_overflow=_CONNECTIONS,
        pool_use_lifo=True,  # each has a cache of its own: the one that was used last knows most
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    event.listen(engine, "close", _undo_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_MILLISECONDS}")
    (pages,) = cursor.execute("PRAGMA page_count").fetchone()
    for pragma in _PRAGMAS if pages else (*_NEW_FILE_PRAGMAS, *_PRAGMAS):
        cursor.execute(pragma)
    (octets,) = cursor.execute("PRAGMA page_size").fetchone()
    cursor.execute(f"PRAGMA wal_autocheckpoint={_LOG_OCTETS // octets}")
    cursor.close()


def driver_of(connection: Connection) -> sqlite3.Connection:
    """The driver's own connection; of SQLite only."""
    return connection.connection.dbapi_connection  # type: ignore[return-value]


def _connected_to_begin(engine: Engine, cache_octets: int) -> Connection:
    """A connection to SQLite whose user begins its transactions, and which has so large a cache."""
    connection = engine.connect()
    with given_up_on_error(connection):
        connection.execution_options(**{_BEGUN: True})
        # Always: it may have been somebody else's.
        driver_of(connection).execute(f"PRAGMA cache_size=-{cache_octets // 1024}")
    return connection


@contextmanager
def given_up_on_error(connection: Connection) -> Iterator[None]:
    """Close a connection where the block fails, and whatever it was in, of which SQLAlchemy need not know.

    One that is only forgotten is closed when Python finds it, and `dispose` knows of it no more.
    """
    try:
        yield
    except BaseException:
        connection.invalidate()
        connection.close()
        raise


def _begin_sqlite(connection: Connection) -> None:
    if not connection.get_execution_options().get(_BEGUN):
        driver_of(connection).execute("BEGIN")


def _undo_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # A closed connection keeps its transaction, and with that the write lock, for as long as anything has
    # one of its statements: the trace of an interrupt, say, after which SQLAlchemy closes at once.
    with suppress(sqlite3.Error):  # what is closed already, or damaged, is closed all the same
        connection.rollback()


_POSTGRESQL_PATIENCE: Final = {
    "connect_timeout": "10",  # seconds
    "keepalives_idle": "20",  # seconds
    "keepalives_interval": "5",  # seconds
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",  # milliseconds
}
"""How soon a server is given up that says nothing: one without power or network does not even end its
connections, and the system would send what it does not answer for a quarter of an hour."""


def _postgresql_engine(url: URL) -> Engine:
    said = {"application_name": f"mailstack {os.getpid()}", **_POSTGRESQL_PATIENCE, **url.query}
    try:
        return create_engine(
            url.set(query=said),
            pool_size=_CONNECTIONS,
            max_overflow=_CONNECTIONS,
            pool_pre_ping=True,  # a restarted server costs nobody a failed reply
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise BadSetting(
            "a postgresql database needs the driver: pip install 'mailstack[postgresql]'"
        ) from error
