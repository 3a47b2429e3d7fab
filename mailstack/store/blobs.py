"""Rows of `content`, written and read in pieces.

SQLite's driver puts a large value together in one block of memory and copies it to another; both come
fresh from the system each time, page by page. Pieces of 64 KiB take half the time for 5 MB (3.0 ms in
place of 6.5, digests included), and can be sent as they are.

What is written would be copied twice on its way to the pages of the database, once as the value of a
statement and once as a record. Pieces are copied straight to the pages.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from sqlalchemy import Connection, bindparam, func, insert, select

from mailstack.mail.spool import Piece
from mailstack.store import writeback
from mailstack.store.prepared import Prepared
from mailstack.store.sqlite import driver_of, log_path
from mailstack.store.tables import content

PIECE_OCTETS: Final = 64 * 1024

_FLOWING_CACHE_OCTETS: Final = 512 * 1024
"""Of SQLite's pages, while a large message comes by: what does not fit is written to the log at once."""

LAST_OPENED: Final = sys.maxsize if sys.version_info >= (3, 11, 4) else 2**31 - 1
"""The last row that the driver opens: before Python 3.11.4 it took the number for a C int (gh-100370).

Debian 12 has 3.11.2, and PARTS_A_MESSAGE makes numbers large early. What is behind it is written and read
as a whole.
"""


def pieces(connection: Connection, content_id: int) -> list[bytes]:
    """The octets of that row, in pieces of PIECE_OCTETS but for the last; none where there is no row."""
    if not _opens(connection, content_id):
        row = _CONTENT.row(connection, content_id)
        octets: bytes = row[0] if row else b""
        return [octets[at : at + PIECE_OCTETS] for at in range(0, len(octets), PIECE_OCTETS)]
    try:
        blob = _opened(connection, content_id, readonly=True)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        return []  # "no such rowid"
    with blob:
        return [blob.read(PIECE_OCTETS) for _ in range(0, len(blob), PIECE_OCTETS)]


def put(connection: Connection, content_id: int, pieces: Sequence[Piece]) -> None:
    """Insert a row of the pieces, one behind the other."""
    if not _opens(connection, content_id):
        INSERT.run(connection, content_id, b"".join(pieces))
        return
    _INSERT_ZEROS.run(connection, content_id, sum(map(len, pieces)))
    with _opened(connection, content_id, readonly=False) as blob:
        for piece in pieces:
            blob.write(piece)


@contextmanager
def flowing(connection: Connection, octets: int) -> Iterator[Callable[[], None]]:
    """Have so many octets, where they are many, go to SQLite's log and from there to the disk as they come.

    Else COMMIT writes all of them, and waits for the disk, which did nothing until then. Gives what has the
    disk begin, to be called now and then within the block.
    """
    if connection.dialect.name != "sqlite" or octets <= 2 * _FLOWING_CACHE_OCTETS:
        yield _nothing
        return
    driver = driver_of(connection)
    ((before,),) = driver.execute("PRAGMA cache_size").fetchall()
    driver.execute(f"PRAGMA cache_size=-{_FLOWING_CACHE_OCTETS // 1024}")
    yield partial(writeback.begin, log_path(str(connection.engine.url.database)))
    # After an error nobody uses this connection any more.
    driver.execute(f"PRAGMA cache_size={before}")


def _nothing() -> None:
    pass


def _opens(connection: Connection, content_id: int) -> bool:
    return connection.dialect.name == "sqlite" and content_id <= LAST_OPENED


def _opened(connection: Connection, content_id: int, *, readonly: bool) -> sqlite3.Blob:
    return driver_of(connection).blobopen(content.name, content.c.octets.name, content_id, readonly=readonly)


INSERT: Final = Prepared(insert(content), "id", "octets")
"""One row, or many, of values that are in one piece."""

_INSERT_ZEROS: Final = Prepared(
    insert(content).values(id=bindparam("id"), octets=func.zeroblob(bindparam("length"))), "id", "length"
)
_CONTENT: Final = Prepared(select(content.c.octets).where(content.c.id == bindparam("id")), "id")
