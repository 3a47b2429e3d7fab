"""Reads every octet of the store and compares it with what was deposited.

What it finds is noted, so that RETR names a damaged message before its reply begins; what turns out
whole again is no longer called damaged. Messages from before there were digests get theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import select, update

from mailstack.errors import StoreDamaged
from mailstack.store import damage, digests
from mailstack.store.bulk import Stored, between, group_after, part_by_part, snapshot
from mailstack.store.engine import Database
from mailstack.store.inspection import Inspection
from mailstack.store.leftovers import IN_NO_MAILDROP
from mailstack.store.legible import UNREADABLE
from mailstack.store.parts import message_of
from mailstack.store.tables import leftover, message


class Reread(NamedTuple):
    """What reading some messages again has shown."""

    last: int  # the highest id of them
    damaged: tuple[tuple[int, str], ...]
    uncanonical: tuple[str, ...]
    whole: dict[int, bytes]  # with the digests that they have, or should have


def reread(database: Database, after: int, last: int) -> Iterator[Reread]:
    """Read all messages behind the id `after` up to `last`, some at a time.

    Where the database itself is damaged, ever fewer are read at once until it is known which ones.
    """
    while after < last:
        try:
            looks = _looked_at(database, after, last)
        except StoreDamaged:
            if last == after + 1:
                yield Reread(last, ((last, f"message {last} is damaged: its content {UNREADABLE}"),), (), {})
                return
            middle = (after + last) // 2
            yield from reread(database, after, middle)
            after = middle
            continue
        if not looks:
            return
        after = looks[-1].id
        yield _told(database, after, looks)


def _looked_at(database: Database, after: int, last: int) -> list[_Look]:
    """The next messages behind the id `after`, as many as are worth one transaction, seen whole."""
    with snapshot(database) as connection:
        group = [each for each in group_after(connection, after) if each.id <= last]
        looks = {each.id: _Look(each) for each in group}
        if len(group) > 1:
            for number, octets in between(connection, group[0].id, group[-1].id):
                if look := looks.get(message_of(number)):
                    look.see(number, octets)
    if len(group) == 1:
        for number, octets in part_by_part(database.reading, group[0].id):
            looks[group[0].id].see(number, octets)
    return list(looks.values())


def note(database: Database, found: Reread) -> None:
    """Remember what is damaged, and what is not; raises StoreDamaged where not even that can be written."""
    with database.reading() as connection:
        outdated = connection.execute(
            select(message.c.id).where(
                message.c.id.in_(found.whole),
                message.c.digests.is_(None) | message.c.damaged_at.is_not(None),
            )
        )
        ids = outdated.scalars().all()
    if ids or found.damaged:
        with database.writing() as connection:
            damage.note(connection, [number for number, _ in found.damaged])
            for number in ids:
                damage.forget(connection, number)
                connection.execute(
                    update(message)
                    .where(message.c.id == number, message.c.digests.is_(None))
                    .values(digests=found.whole[number])
                )


class _Look:
    def __init__(self, stored: Stored) -> None:
        self.id = stored.id
        self.inspection = Inspection(*stored)
        self.digests = b""

    def see(self, number: int, octets: bytes) -> None:
        self.inspection.see(number, octets)
        self.digests += digests.of_part(octets)


def _told(database: Database, last: int, looks: list[_Look]) -> Reread:
    damaged = [(look.id, look.inspection.damage) for look in looks if look.inspection.damage]
    if damaged:  # what was deleted is not damaged but gone, or will be soon
        wanted = select(message.c.id).where(message.c.id.in_([number for number, _ in damaged]))
        wanted = wanted.where(~(message.c.id.in_(select(leftover.c.message_id)) & IN_NO_MAILDROP))
        with database.reading() as connection:
            there = set(connection.execute(wanted).scalars().all())
        damaged = [each for each in damaged if each[0] in there]
    sound = [look for look in looks if not look.inspection.damage]
    return Reread(
        last,
        tuple((number, said) for number, said in damaged if said),
        tuple(look.inspection.fault for look in sound if look.inspection.fault),
        {look.id: look.digests for look in sound},
    )
