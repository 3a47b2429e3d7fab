"""What a driver's error means to the floors above, which know nothing of drivers."""

from __future__ import annotations

import sqlite3
from typing import Final

from mailstack.errors import (
    StoreContended,
    StoreCutOff,
    StoreDamaged,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)

_CONTENDED: Final = ("40P01", "40001")  # PostgreSQL: a deadlock was detected, serialization failed
_CUT_OFF: Final = ("57P01", "57P02", "08006")  # PostgreSQL: its end, a crash of another session, the network
_CORRUPTED: Final = ("XX001", "XX002")  # PostgreSQL: data, or an index, is corrupted
_UNREADABLE: Final = (sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_CORRUPTFS)  # a sector is lost, say


def fact(error: BaseException | None, path: str | None) -> StoreUnavailable | StoreFull:
    """The error to raise in its place; `path` is the database file, or None where that is a server."""
    text = " ".join(str(error).split())
    if getattr(error, "sqlstate", None) in _CONTENDED:
        return StoreContended(f"the database refused: {text}")
    if _is_cut_off(error):
        return StoreCutOff(f"the database cannot be reached: {text}")
    if getattr(error, "sqlstate", None) in _CORRUPTED:
        return StoreDamaged(f"the database is damaged ({text}); restore it from a backup")
    code = code_of(error)
    if code & 0xFF == sqlite3.SQLITE_FULL:
        return StoreFull("the disk of the database is full")
    if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or code in _UNREADABLE:
        return StoreDamaged(f"the database {path} is damaged ({text}); restore it from a backup")
    if code & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
        return unwritable(path, text)
    return StoreUnavailable(f"the database refused: {text}")


def code_of(error: BaseException | None) -> int:
    """SQLite's extended code, of which the low octet is the primary one; SQLITE_OK where there is none.

    What the module itself complains of, a closed database say, comes without.
    """
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code


def unwritable(path: str | None, why: str) -> StoreReadOnly:
    """What keeps SQLite from its file is told in words of its own that help nobody."""
    return StoreReadOnly(
        f"the database {path} cannot be written: it, the files beside it and their folder must belong to the"
        f" server and not lie on a read-only disk ({why})"
    )


def _is_cut_off(error: BaseException | None) -> bool:
    """PostgreSQL may have said so; what the driver noticed by itself comes without a number."""
    state = getattr(error, "sqlstate", "")
    return state in _CUT_OFF or (state is None and type(error).__name__ == "OperationalError")
