"""Finding messages and reading their octets: SQL as plain functions `f(connection, ...)`.

One statement opens a message, or with it those that follow it in its maildrop: what a client that
walks through its mail will want next costs the store much less together than one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, bindparam, case, func, literal_column, select
from sqlalchemy.sql.expression import ColumnElement, FromClause

from mailstack.errors import MessageDamaged, MessageGone
from mailstack.mail.spool import PART_OCTETS
from mailstack.store import blobs, digests
from mailstack.store.parts import content_id, first_of, parts_in
from mailstack.store.prepared import Prepared
from mailstack.store.surrogate import SHOWN_ID
from mailstack.store.tables import content, entry, message

_AT_ONCE: Final = 200
"""So many uids at most are looked at in one go, however small their messages are."""

PARTS_A_STEP: Final = 2
"""So many later parts of a message are read at a time: 512 KiB, for which a question is worth its cost."""


_SMALL_OCTETS: Final = 16 * 1024
"""Up to this size a copy of the content, prefix included, costs less than to handle two pieces."""

_PIECE: Final[ColumnElement[int]] = literal_column(str(blobs.PIECE_OCTETS))


class Ahead(NamedTuple):
    """How much to read of what follows a message."""

    octets: int = 0
    """All that fits into so many..."""
    asked: int = 0
    """...and so many messages, which the client has asked for already, ..."""
    most: int = 0
    """...as far as they fit into so many, which are no fewer."""


NOTHING: Final = Ahead()


class Opened(NamedTuple):
    """An entry found, with its first octets: prefix and first part, in pieces (see `blobs`)."""

    uid: int
    message_id: int
    octets: int  # of prefix and content together
    content_octets: int
    dotted: bool
    first: Sequence[bytes]
    held: int  # octets of those
    digests: bytes | None


def open_message(connection: Connection, account_id: int, uid: int, *, surrogates: bool = False) -> Opened:
    """Find one entry, or its surrogate, and read its first octets.

    Raises MessageGone when it has gone, and MessageDamaged when it is not what was deposited.
    """
    return open_messages(connection, account_id, uid, surrogates=surrogates)[0]


def open_messages(
    connection: Connection,
    account_id: int,
    uid: int,
    *,
    ahead: Ahead = NOTHING,
    last_uid: int = 0,
    surrogates: bool = False,
) -> list[Opened]:
    """The same for an entry and those behind it up to `last_uid`, as far as `ahead` goes.

    Of those a damaged one is left out, with all behind it: that is told to whoever asks for it.
    """
    until = _until(connection, account_id, uid, last_uid, ahead) if ahead.most else uid
    rows = (_OPEN_SURROGATES if surrogates else _OPEN).rows(connection, account_id, uid, until)
    if not rows or rows[0][0] != uid:
        raise MessageGone("the message is no longer in the maildrop")
    found = [_opened(connection, rows[0])]
    for row in rows[1:]:
        try:
            found.append(_opened(connection, row))
        except MessageDamaged:
            break
    return found


def _until(connection: Connection, account_id: int, uid: int, last_uid: int, ahead: Ahead) -> int:
    """The uid up to which what follows `uid` fits."""
    until, held = uid, 0
    rows = _FOLLOWING.rows(connection, account_id, uid, min(last_uid, uid + _AT_ONCE))
    for number, (following, octets) in enumerate(rows, 1):
        held += min(octets, PART_OCTETS)
        if held > (ahead.most if number <= ahead.asked else ahead.octets):
            break
        until = following
    return until


def _opened(connection: Connection, row: Sequence[Any]) -> Opened:
    uid, message_id, octets, prefix, content_octets, dotted, known, damaged_at, first = row
    if damaged_at is not None:
        raise digests.damaged(message_id)
    pieces: Sequence[bytes] = (first or b"",)
    if content_octets > blobs.PIECE_OCTETS:
        pieces = _part(connection, message_id, content_octets, known, 0)
    elif content_octets and (len(pieces[0]) != content_octets or not digests.fits_whole(known, pieces[0])):
        raise digests.damaged(message_id)
    pieces = (prefix + pieces[0],) if content_octets <= _SMALL_OCTETS else (prefix, *pieces)
    held = sum(map(len, pieces))
    return Opened(uid, message_id, octets, content_octets, bool(dotted), pieces, held, known)


def number(connection: Connection, account_id: int, uid: int) -> int:
    """The id of an entry's message, for when nothing else of it can be read; raises MessageGone."""
    row = _NUMBER.row(connection, account_id, uid)
    if row is None:
        raise MessageGone("the message is no longer in the maildrop")
    return int(row[0])


def step(connection: Connection, opened: Opened, number: int) -> list[bytes]:
    """Some later parts of a message's content, from that number on, in pieces.

    Raises MessageDamaged where they are not what was deposited.
    """
    message_id, octets, known = opened.message_id, opened.content_octets, opened.digests
    some = range(number, min(number + PARTS_A_STEP, parts_in(octets)))
    return [piece for each in some for piece in _part(connection, message_id, octets, known, each)]


def _part(
    connection: Connection, message_id: int, content_octets: int, known: bytes | None, number: int
) -> list[bytes]:
    """One part in pieces; raises MessageDamaged unless it is what was deposited."""
    pieces = blobs.pieces(connection, content_id(message_id, number))
    whole = min(PART_OCTETS, content_octets - number * PART_OCTETS)
    if sum(map(len, pieces)) != whole or not digests.fits(known, number, *pieces):
        raise digests.damaged(message_id)
    return pieces


def _open(shown: FromClause, source: FromClause, octets: Any, prefix: Any) -> Prepared:
    """The entries of a range of uids, each with the message that is shown for it."""
    statement = (
        select(
            entry.c.uid,
            shown.c.id,
            octets,
            prefix,
            shown.c.octets,
            shown.c.dotted,
            shown.c.digests,
            shown.c.damaged_at,
            case((shown.c.octets <= _PIECE, content.c.octets)),  # a larger one is read in pieces
        )
        .select_from(source)
        .outerjoin(content, content.c.id == first_of(shown.c.id))
        .where(
            entry.c.account_id == bindparam("account_id"),
            entry.c.uid.between(bindparam("first"), bindparam("until")),
        )
        .order_by(entry.c.uid)
    )
    return Prepared(statement, "account_id", "first", "until")


_WITH_MESSAGE: Final = entry.join(message, message.c.id == entry.c.message_id)
_OPEN = _open(message, _WITH_MESSAGE, entry.c.octets, entry.c.prefix)
_shown = message.alias("shown")
_OPEN_SURROGATES = _open(
    _shown,
    _WITH_MESSAGE.join(_shown, _shown.c.id == SHOWN_ID),
    func.coalesce(entry.c.surrogate_octets, entry.c.octets),
    func.coalesce(entry.c.surrogate_prefix, entry.c.prefix),
)
_FOLLOWING = Prepared(
    select(entry.c.uid, entry.c.octets)
    .where(
        entry.c.account_id == bindparam("account_id"),
        entry.c.uid > bindparam("first"),
        entry.c.uid <= bindparam("last_uid"),
    )
    .order_by(entry.c.uid),
    "account_id",
    "first",
    "last_uid",
)
_NUMBER = Prepared(
    select(entry.c.message_id).where(
        entry.c.account_id == bindparam("account_id"), entry.c.uid == bindparam("uid")
    ),
    "account_id",
    "uid",
)
