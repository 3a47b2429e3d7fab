"""The lists of a maildrop, each read as one row: SQL as plain functions `f(connection, ...)`.

A driver gives up the interpreter for every row that it fetches, and gets it back when the other
threads let it: for long lists that takes longer than the reading. So the database joins them.
"""

from __future__ import annotations

import json
from array import array
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Text, bindparam, cast, func, select

from mailstack.store.prepared import Prepared, joined
from mailstack.store.tables import entry


class Listing(NamedTuple):
    """A maildrop's entries in order, a column an array: message n is at index n - 1."""

    uids: array[int]
    octets: array[int]
    messages: array[int]


def listing(connection: Connection, account_id: int, last_uid: int, *, surrogates: bool = False) -> Listing:
    """The entries up to `last_uid`, in the order of their uids; with `surrogates`, the sizes of those."""
    row = (_SURROGATES if surrogates else _LISTING).row(connection, account_id, last_uid)
    uids, octets, messages = map(_numbers, row or ("", "", ""))
    return Listing(uids, octets, messages)


def unique_ids(connection: Connection, account_id: int, last_uid: int) -> list[str]:
    """The UIDLs of the same entries, in the same order (RFC 1939 §7)."""
    row = _UNIQUE_IDS.row(connection, account_id, last_uid)
    return row[0].split() if row and row[0] else []


def _numbers(texts: str | None) -> array[int]:
    # The quickest way that Python has to read many numbers.
    return array("q", json.loads(f"[{texts.replace(' ', ',')}]") if texts else ())


def _in_one_row(*columns: ColumnElement[Any]) -> Prepared:
    """Each column's values up to a uid, in the order of the uids, joined to one text."""
    some = (
        select(*(cast(column, Text).label(f"c{place}") for place, column in enumerate(columns)))
        .where(entry.c.account_id == bindparam("account_id"), entry.c.uid <= bindparam("last_uid"))
        .order_by(entry.c.uid)
        .subquery()
    )
    texts: list[Any] = [joined(column) for column in some.c]
    return Prepared(select(*texts), "account_id", "last_uid")


_LISTING = _in_one_row(entry.c.uid, entry.c.octets, entry.c.message_id)
_SURROGATES = _in_one_row(
    entry.c.uid, func.coalesce(entry.c.surrogate_octets, entry.c.octets), entry.c.message_id
)
_UNIQUE_IDS = _in_one_row(entry.c.unique_id)
