"""One row of `content`, read in pieces of a size that the C library keeps at hand.

SQLite's driver puts a large value together in one block of memory and copies it to another; both come
fresh from the system each time, page by page. Pieces of 64 KiB take half the time for 5 MB (3.0 ms in
place of 6.5, digests included), and can be sent as they are.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from sqlalchemy import Connection, bindparam, select

from mailstack.store.prepared import Prepared
from mailstack.store.tables import content

PIECE_OCTETS: Final = 64 * 1024


def pieces(connection: Connection, content_id: int) -> list[bytes]:
    """The octets of that row, in pieces of PIECE_OCTETS but for the last; none where there is no row."""
    if connection.dialect.name != "sqlite":
        row = _CONTENT.row(connection, content_id)
        octets: bytes = row[0] if row else b""
        return [octets[at : at + PIECE_OCTETS] for at in range(0, len(octets), PIECE_OCTETS)]
    driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    try:
        blob = driver.blobopen(content.name, content.c.octets.name, content_id, readonly=True)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        return []  # "no such rowid"
    with blob:
        return [blob.read(PIECE_OCTETS) for _ in range(0, len(blob), PIECE_OCTETS)]


_CONTENT: Final = Prepared(select(content.c.octets).where(content.c.id == bindparam("id")), "id")
