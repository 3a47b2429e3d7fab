"""SQLite as the store uses it: how a file is made, how connections to it are, where its log lies."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPICursor

from mailstack.errors import StoreUnavailable

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
_BEGUN: Final = "mailstack_begun"

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


def engine_of(url: URL, connections: int, *, may_only_read: bool = False) -> Engine:
    """Connections to a file, twice so many at most; whoever asks for one begins a transaction with it.

    `may_only_read`: from a disk that takes nothing they read, for a short while: see `_connect`.
    """
    engine = create_engine(
        url,
        # Python's sqlite3 would begin transactions by guesswork; we say BEGIN ourselves.
        connect_args={
            "isolation_level": None,
            "check_same_thread": False,
            "timeout": _BUSY_MILLISECONDS / 1000,
        },
        pool_size=connections,
        max_overflow=connections,
        pool_use_lifo=True,  # each has a cache of its own: the one that was used last knows most
    )
    event.listen(engine, "do_connect", partial(_connect, may_only_read=may_only_read))
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    event.listen(engine, "close", _undo)
    return engine


def _connect(
    _dialect: object,
    _record: object,
    arguments: list[str],
    options: dict[str, Any],
    *,
    may_only_read: bool,
) -> sqlite3.Connection | None:
    """A connection that asks for nothing but reading, on a disk that takes nothing; None: the usual one.

    It sees no change once the disk takes something again, so it is for commands, and not for the service.
    """
    path = arguments[0]
    require_file_of_log(path)
    if not (may_only_read and _is_on_read_only_disk(path)):
        return None
    # SQLite would make a log to read. Without one it is told that nobody writes; with one, which whoever
    # was killed has left, it finds its way by the memory beside it.
    how = "mode=ro" if octets_of(log_path(path)) else "immutable=1"
    opened: sqlite3.Connection = sqlite3.connect(f"{Path(path).as_uri()}?{how}", uri=True, **options)
    return opened


def _is_on_read_only_disk(path: str) -> bool:
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:  # it is not there, or not for us, which SQLite tells
        return False


def require_file_of_log(path: str) -> None:
    """Raise StoreUnavailable where SQLite would make a file and delete the log of the one that was there."""
    # In this order: whoever makes a database makes its log last.
    if os.path.exists(log_path(path)) and not octets_of(path):
        raise StoreUnavailable(
            f"there is no database {path}, and its log {log_path(path)} is still there and may hold mail that"
            " was acknowledged: stop the server, and put the file back or move the log along with it"
        )


def octets_of(path: str) -> int:
    """The size of a file; 0 where there is none, or it cannot be seen, which SQLite tells in its way."""
    with suppress(OSError):
        return os.stat(path).st_size
    return 0


def _prepare(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_MILLISECONDS}")
    (pages,) = cursor.execute("PRAGMA page_count").fetchone()
    for pragma in _PRAGMAS if pages else (*_NEW_FILE_PRAGMAS, *_PRAGMAS):
        cursor.execute(pragma)
    (octets,) = cursor.execute("PRAGMA page_size").fetchone()
    cursor.execute(f"PRAGMA wal_autocheckpoint={_LOG_OCTETS // octets}")
    cursor.close()


def _begin(connection: Connection) -> None:
    if not connection.get_execution_options().get(_BEGUN):
        driver_of(connection).execute("BEGIN")


def _undo(connection: sqlite3.Connection, _record: object) -> None:
    # A closed connection keeps its transaction, and with that the write lock, for as long as anything has
    # one of its statements: the trace of an interrupt, say, after which SQLAlchemy closes at once.
    with suppress(sqlite3.Error):  # what is closed already, or damaged, is closed all the same
        connection.rollback()


def connected_to_write(engine: Engine, file_octets: int) -> Connection:
    """A connection that begins no transaction by itself; its cache fits a file of this size."""
    wanted = min(file_octets // _WRITING_CACHE_SHARE, _WRITING_CACHE_OCTETS)
    return _connected(engine, max(wanted, _CACHE_OCTETS))


def connected_to_read(engine: Engine) -> Connection:
    """A connection that begins no transaction by itself, for a thread that does nothing but read."""
    return _connected(engine, _READING_CACHE_OCTETS)


def _connected(engine: Engine, cache_octets: int) -> Connection:
    connection = engine.connect()
    with given_up_on_error(connection):
        connection.execution_options(**{_BEGUN: True})
        # Always: it may have been somebody else's.
        driver_of(connection).execute(f"PRAGMA cache_size=-{cache_octets // 1024}")
    return connection


@contextmanager
def write_transaction(connection: Connection) -> Iterator[None]:
    """A transaction that has the write lock from its beginning; the connection is for no other kind.

    Whoever begins as a reader and writes later is refused at once where somebody else writes, or has
    since: for that SQLite does not wait.
    """
    connection.execution_options(**{_BEGUN: True})
    with connection.begin():
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield


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


def driver_of(connection: Connection) -> sqlite3.Connection:
    """The driver's own connection; of SQLite only."""
    return connection.connection.dbapi_connection  # type: ignore[return-value]


class Checkpoint(NamedTuple):
    """What came of an attempt to copy the log back."""

    busy: bool  # somebody was in the way, for whom nobody waits long
    logged: int  # pages
    copied: int  # of these


def checkpoint(cursor: DBAPICursor, kind: str) -> Checkpoint:
    """Copy the log back, as far as those who read from it let one."""
    cursor.execute(f"PRAGMA busy_timeout={_RESTART_MILLISECONDS}")
    ((busy, logged, copied),) = cursor.execute(f"PRAGMA wal_checkpoint({kind})").fetchall()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_MILLISECONDS}")
    return Checkpoint(bool(busy), logged, copied)


def try_to_write(cursor: DBAPICursor) -> None:
    """Begin to write, no more; raises what SQLite says. Who writes just then shows that one can."""
    cursor.execute("PRAGMA busy_timeout=0")
    try:
        cursor.execute("BEGIN IMMEDIATE")
        cursor.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_MILLISECONDS}")


def log_path(file: str) -> str:
    """Where SQLite keeps the log of a database in this file."""
    return f"{file}-wal"


def files_of(file: str) -> tuple[str, ...]:
    """The database, its log, and the memory by which all who have it open find their way in that."""
    return file, log_path(file), f"{file}-shm"


def page_octets(connection: Connection) -> int:
    """The size of a page of this SQLite file, which it has had from its first day."""
    octets: int = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
    return octets


def reusable_octets(connection: Connection) -> int:
    """How many octets of a SQLite file belong to nothing and will be written again; else 0."""
    if connection.dialect.name != "sqlite":
        return 0
    pages: int = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
    return pages * page_octets(connection)
