"""Decay is noticed before a client is told that it has the message."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select, update

from mailstack.errors import MessageDamaged
from mailstack.mail.spool import PART_OCTETS
from mailstack.pop3.replies import reply_to
from mailstack.store import digests, fetching
from mailstack.store.engine import Database
from mailstack.store.parts import content_id
from mailstack.store.store import Store
from mailstack.store.tables import content, message
from mailstack.store.walk import Content
from tests.support import maildrops

JO = "jo@example.org"
SMALL = b"Subject: small\r\n\r\nhello\r\n"
LARGE = b"Subject: large\r\n\r\n" + b"x" * 2 * PART_OCTETS + b"\r\n"


@pytest.fixture
def filled(database: Database) -> Database:
    maildrops.add_accounts(database, JO)
    maildrops.deposit(database, SMALL, JO)
    maildrops.deposit(database, LARGE, JO)
    return database


def decay(database: Database, message_id: int, part: int) -> None:
    """Change one octet of a part, as a disk does."""
    mine = content.c.id == content_id(message_id, part)
    with database.reading() as connection:
        octets = bytearray(connection.execute(select(content.c.octets).where(mine)).scalar_one())
    octets[len(octets) // 2] ^= 1
    maildrops.overwrite(database, message_id, bytes(octets), part=part)


def test_a_digest_is_the_crc_32_of_every_other_program():
    assert digests.of_part(b"1234", b"56789") == bytes.fromhex("cbf43926")  # what its catalogues check it by


def test_a_deposit_keeps_a_digest_of_every_part(filled: Database) -> None:
    with filled.reading() as connection:
        kept = connection.execute(select(message.c.digests).order_by(message.c.id)).scalars().all()
    assert bytes(kept[0]) == digests.of_part(SMALL)
    assert len(kept[1]) == 3 * digests.DIGEST_OCTETS
    assert digests.fits(kept[1], 1, LARGE[PART_OCTETS : 2 * PART_OCTETS])


def test_a_damaged_message_is_refused_by_its_number(filled: Database) -> None:
    decay(filled, 1, 0)
    with filled.reading() as connection, pytest.raises(MessageDamaged, match="message 1 is damaged") as told:
        fetching.open_message(connection, 1, 1)
    assert reply_to(told.value).text.startswith(b"-ERR [SYS/PERM] message 1 is damaged")


def test_a_message_from_before_digests_is_believed(filled: Database) -> None:
    decay(filled, 1, 0)
    with filled.writing() as connection:
        connection.execute(update(message).values(digests=None))
    with filled.reading() as connection:
        assert fetching.open_message(connection, 1, 1).octets == len(SMALL) + 32


async def test_damage_behind_the_first_part_cuts_one_reply_and_refuses_the_next(
    filled: Database, tmp_path: Path
) -> None:
    decay(filled, 2, 2)
    store = Store(filled, state_dir=tmp_path, reserve_octets=0)
    try:
        opened = await store.walk(1, 2).open(2)
        with pytest.raises(MessageDamaged):
            await _all(opened)
        with pytest.raises(MessageDamaged):
            await store.walk(1, 2).open(2)
        assert await _all(await store.walk(1, 2).open(1)) == b"Return-Path: <eve@example.net>\r\n" + SMALL
    finally:
        await store.close()


async def _all(opened: Content) -> bytes:
    return b"".join([part async for part in opened])
