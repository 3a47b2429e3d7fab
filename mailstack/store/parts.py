"""Which rows of `content` are a message's: their ids hold the message's id and the part's number.

So one index serves both, in reading order.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, Integer, literal_column

from mailstack.mail.spool import PART_OCTETS
from mailstack.store.tables import content

PARTS_A_MESSAGE: Final = 1 << 16
"""`content.id` is `message.id * PARTS_A_MESSAGE + part`."""

# Written into the statement: PostgreSQL does not see that two parameters of GROUP BY are the same.
_IN_SQL: Final[ColumnElement[int]] = literal_column(str(PARTS_A_MESSAGE), Integer)

MESSAGE_ID: Final[ColumnElement[int]] = content.c.id // _IN_SQL
"""Of a row of `content`: the id of its message, which may not be there."""


def parts_in(octets: int) -> int:
    """How many parts a content of so many octets has."""
    return -(-octets // PART_OCTETS)


def content_id(message_id: int, part: int = 0) -> int:
    """The id of a part; that of the first one where none is named."""
    return message_id * PARTS_A_MESSAGE + part


def content_ids(message_id: int, octets: int) -> range:
    """The ids of all parts that a message of so many octets has."""
    first = message_id * PARTS_A_MESSAGE
    return range(first, first - (-octets // PART_OCTETS))


def message_of(number: int) -> int:
    """The id of the message that the row `number` of `content` belongs to."""
    return number // PARTS_A_MESSAGE


def first_of(message_id: ColumnElement[int]) -> ColumnElement[int]:
    """In SQL, the id of a message's first part."""
    return message_id * _IN_SQL


def is_of_messages(low: int, high: int) -> ColumnElement[bool]:
    """In SQL, whether a row of `content` belongs to a message with an id from `low` up to `high`."""
    return (content.c.id >= content_id(low)) & (content.c.id < content_id(high))
