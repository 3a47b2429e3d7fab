"""The lists of a maildrop, each page of them read as one row: SQL as plain functions `f(connection, ...)`.

A driver gives up the interpreter for every row that it fetches, and gets it back when the other
threads let it: for long lists that takes longer than the reading. So the database joins them. And
they come by the page: a client may ask for a list of any length and then not read it.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Text, bindparam, cast, func, literal_column, select

from mailstack.store.prepared import Prepared, joined
from mailstack.store.tables import entry

PAGE_ENTRIES: Final = 4000
"""A page's columns of numbers are 32 KiB, and its unique-ids 280 KiB at the very most."""

_SLICE_CHARACTERS: Final = 16 * 1024
_STRIDE: Final = 128
_LONGEST: Final = 71
"""A unique-id has at most 70 characters (RFC 1939 §7), and a space behind it."""


class Layout(NamedTuple):
    """Where the pages of a maildrop begin: at each of these uids, and they are full but for the last."""

    firsts: array[int]
    entries: int  # on all of them


class Listing(NamedTuple):
    """Entries in the order of their uids, a column an array."""

    uids: array[int]
    octets: array[int]


class UniqueIds:
    """The UIDLs of the same entries, kept as one text: as strings they take five times that."""

    __slots__ = ("_places", "_text")

    def __init__(self, text: str) -> None:
        """Of the ids with a space between each two."""
        self._text = text
        self._places: array[int] | None = None  # where every so manyth of them begins

    def __len__(self) -> int:
        return self._text.count(" ") + 1 if self._text else 0

    def __iter__(self) -> Iterator[str]:
        for some in self.slices():
            yield from some

    def __getitem__(self, index: int) -> str:
        """One of them; whoever asks for one will ask for the next, so this seeks in the text only once."""
        if self._places is None:
            self._places = self._measured()
        begin = self._places[index // _STRIDE]
        return self._text[begin : begin + _STRIDE * _LONGEST].split(" ", _STRIDE)[index % _STRIDE]

    def slices(self) -> Iterator[list[str]]:
        """All of them, some at a time."""
        at, text = 0, self._text
        while at < len(text):
            end = text.find(" ", at + _SLICE_CHARACTERS)
            end = end if end >= 0 else len(text)
            yield text[at:end].split(" ")
            at = end + 1

    def _measured(self) -> array[int]:
        places, at = array("I"), 0
        for number, unique_id in enumerate(self):
            if number % _STRIDE == 0:
                places.append(at)
            at += len(unique_id) + 1
        return places


def layout(connection: Connection, account_id: int, last_uid: int) -> Layout:
    """The pages of the entries up to `last_uid`."""
    found = (uid for (uid,) in _FIRSTS.rows(connection, account_id, last_uid) if uid is not None)
    firsts = array("q", sorted(found))
    if not firsts:
        return Layout(firsts, 0)
    row = _COUNT.row(connection, account_id, firsts[-1], last_uid)
    assert row is not None
    return Layout(firsts, PAGE_ENTRIES * (len(firsts) - 1) + row[0])


def listing(
    connection: Connection, account_id: int, last_uid: int, *, first_uid: int = 0, surrogates: bool = False
) -> Listing:
    """The entries from `first_uid` to `last_uid` in their order; with `surrogates`, the sizes of those."""
    row = (_SURROGATES if surrogates else _LISTING).row(connection, account_id, first_uid, last_uid)
    uids, octets = map(_numbers, row or ("", ""))
    return Listing(uids, octets)


def unique_ids(connection: Connection, account_id: int, last_uid: int, *, first_uid: int = 0) -> UniqueIds:
    """The UIDLs of the same entries, in the same order (RFC 1939 §7)."""
    row = _UNIQUE_IDS.row(connection, account_id, first_uid, last_uid)
    return UniqueIds((row and row[0]) or "")


def _numbers(texts: str | None) -> array[int]:
    # The quickest way that Python has to read many numbers.
    numbers = json.loads(f"[{texts.replace(' ', ',')}]") if texts else ()
    try:
        return array("I", numbers)
    except OverflowError:
        return array("q", numbers)


_ACCOUNT: Final = entry.c.account_id == bindparam("account_id")
_UP_TO_LAST: Final = entry.c.uid <= bindparam("last_uid")
_FROM_FIRST: Final = entry.c.uid >= bindparam("first_uid")


def _in_one_row(*columns: ColumnElement[Any]) -> Prepared:
    """Each column's values of a page, in the order of the uids, joined to one text."""
    some = (
        select(*(cast(column, Text).label(f"c{place}") for place, column in enumerate(columns)))
        .where(_ACCOUNT, _FROM_FIRST, _UP_TO_LAST)
        .order_by(entry.c.uid)
        .subquery()
    )
    texts: list[Any] = [joined(column) for column in some.c]
    return Prepared(select(*texts), "account_id", "first_uid", "last_uid")


def _hopping() -> Prepared:
    """The uids at which pages begin, and NULL behind the last.

    From each the index is followed to the next: a window function would number every entry, which
    takes ten times as long.
    """
    first = select(func.min(entry.c.uid).label("uid")).where(_ACCOUNT, _UP_TO_LAST)
    page = first.cte("page", recursive=True)
    following = (
        select(entry.c.uid)
        .where(_ACCOUNT, entry.c.uid >= page.c.uid, _UP_TO_LAST)
        .order_by(entry.c.uid)
        .limit(literal_column("1"))
        .offset(literal_column(str(PAGE_ENTRIES)))
        .scalar_subquery()
    )
    page = page.union_all(select(following).where(page.c.uid.is_not(None)))
    return Prepared(select(page.c.uid), "account_id", "last_uid")


_FIRSTS = _hopping()
_COUNT = Prepared(
    select(func.count()).select_from(entry).where(_ACCOUNT, _FROM_FIRST, _UP_TO_LAST),
    "account_id",
    "first_uid",
    "last_uid",
)
_LISTING = _in_one_row(entry.c.uid, entry.c.octets)
_SURROGATES = _in_one_row(entry.c.uid, func.coalesce(entry.c.surrogate_octets, entry.c.octets))
_UNIQUE_IDS = _in_one_row(entry.c.unique_id)
