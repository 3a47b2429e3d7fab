"""Reading the content of the whole store, in transactions that are short whatever there is to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, NamedTuple

from sqlalchemy import Connection, select

from mailstack.store.engine import Database
from mailstack.store.parts import content_id, is_of_messages
from mailstack.store.tables import content, message

GROUP_OCTETS: Final = 8 * 1024 * 1024
GROUP_MESSAGES: Final = 1000
PARTS_A_STEP: Final = 32


class Stored(NamedTuple):
    """A message as far as its content can be checked against it."""

    id: int
    octets: int
    digests: bytes | None


@contextmanager
def snapshot(database: Database) -> Iterator[Connection]:
    """A read transaction that sees one moment, on either database."""
    with database.reading() as connection:
        if not database.is_sqlite:  # where every statement has a moment of its own, else
            connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


def group_after(connection: Connection, after: int) -> list[Stored]:
    """The next messages by id, as many as are worth one transaction; a large one alone."""
    group: list[Stored] = []
    octets = 0
    wanted = select(message.c.id, message.c.octets, message.c.digests).where(message.c.id > after)
    for row in connection.execute(wanted.order_by(message.c.id).limit(GROUP_MESSAGES)):
        octets += row.octets
        if group and octets > GROUP_OCTETS:
            break
        group.append(Stored(*row))
    return group


def between(connection: Connection, first: int, last: int) -> Iterator[tuple[int, bytes]]:
    """The content rows (`id`, octets) of the messages from `first` to `last`, in order."""
    here = is_of_messages(first, last + 1)
    for row in connection.execute(select(content.c.id, content.c.octets).where(here).order_by(content.c.id)):
        yield row.id, row.octets


def part_by_part(
    reading: Callable[[], AbstractContextManager[Connection]], number: int
) -> Iterator[tuple[int, bytes]]:
    """A message's content, some parts at a time."""
    for start in range(content_id(number), content_id(number + 1), PARTS_A_STEP):
        here = (content.c.id >= start) & (content.c.id < start + PARTS_A_STEP)
        with reading() as connection:
            wanted = select(content.c.id, content.c.octets).where(here).order_by(content.c.id)
            rows = connection.execute(wanted).all()
        yield from ((row.id, row.octets) for row in rows)
        if len(rows) < PARTS_A_STEP:
            return
