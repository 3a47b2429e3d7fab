"""Walking through a maildrop: what is read ahead, what it may cost, and what stops it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from mailstack.errors import MessageDamaged, MessageGone
from mailstack.store import walk
from mailstack.store.engine import Database
from mailstack.store.removal import Expunge, expunge
from mailstack.store.store import Store
from mailstack.store.walk import Content, Walk
from tests.support import maildrops

ANNA = "anna@example.org"
ANNA_ID = 1
COUNT = 40
PREFIX = b"Return-Path: <eve@example.net>\r\n"


def octets_of(uid: int) -> bytes:
    return PREFIX + b"Subject: %d\r\n\r\n" % uid + b"x" * 2000 + b"\r\n"


@pytest.fixture
def filled(database: Database) -> Database:
    """A maildrop of COUNT messages."""
    maildrops.add_accounts(database, ANNA)
    for uid in range(1, COUNT + 1):
        maildrops.deposit(database, octets_of(uid).removeprefix(PREFIX), ANNA)
    return database


class Asked(NamedTuple):
    """A store, and what its reader threads were asked."""

    mail: Store
    questions: list[object]

    def walk(self, last_uid: int = COUNT) -> Walk:
        return self.mail.walk(ANNA_ID, last_uid)

    @property
    def left(self) -> int:
        return self.mail._source.budget.left


@asynccontextmanager
async def opened(database: Database, directory: Path) -> AsyncIterator[Asked]:
    mail = Store(database, state_dir=directory, reserve_octets=0)
    questions: list[object] = []
    read = mail._readers.read

    async def counting(work):
        questions.append(work)
        return await read(work)

    mail._readers.read = counting  # type: ignore[method-assign]
    try:
        yield Asked(mail, questions)
    finally:
        await mail.close()


def there(content: Content) -> bytes:
    """The octets of a message that is in memory already."""
    pieces = content.whole()
    assert pieces is not None
    return b"".join(pieces)


async def taken(content: Content) -> bytes:
    return b"".join([part async for part in content])


async def test_messages_come_whole_and_in_any_order(filled, tmp_path):
    async with opened(filled, tmp_path) as store:
        on_foot = store.walk()
        for uid in (7, 8, 9, 30, 3, 4, 4, 5, 40, 1, 2):
            content = await on_foot.open(uid)
            assert content.octets == len(octets_of(uid))
            assert there(content) == await taken(content) == octets_of(uid)
        on_foot.close()
        assert store.left == walk._ALL_OCTETS


async def test_a_walk_in_order_asks_seldom(filled, tmp_path):
    async with opened(filled, tmp_path) as store:
        on_foot = store.walk()
        for uid in range(1, COUNT + 1):
            assert there(await on_foot.open(uid)) == octets_of(uid)
        assert len(store.questions) <= 3


async def test_a_walk_goes_on_behind_a_jump_at_the_pace_it_had(filled, tmp_path):
    async with opened(filled, tmp_path) as store:
        on_foot = store.walk()
        for uid in range(1, COUNT + 1):
            await on_foot.open(uid)
        asked = len(store.questions)
        for uid in range(1, COUNT + 1):
            assert there(await on_foot.open(uid)) == octets_of(uid)
        assert len(store.questions) - asked <= 2  # the jump, and all behind it


async def test_a_walk_that_does_not_take_what_was_read_ahead_begins_anew(filled, tmp_path):
    async with opened(filled, tmp_path) as store:
        walking = store.walk()
        held = []
        for uid in (*range(1, COUNT + 1), 1, 2, 1, 2):
            await walking.open(uid)
            held.append(walk._ALL_OCTETS - store.left)
        assert held[-4] == held[-2] == 0
        assert held[-1] <= walk._FIRST_OCTETS < held[-3]


async def test_what_was_asked_for_already_is_read_at_once(filled, tmp_path):
    async with opened(filled, tmp_path) as store:
        on_foot = store.walk()
        for uid in range(1, COUNT + 1):
            assert there(await on_foot.open(uid, behind=COUNT - uid)) == octets_of(uid)
        assert len(store.questions) == 1


async def test_what_was_asked_for_already_is_not_read_behind_a_jump(filled, tmp_path):
    async with opened(filled, tmp_path) as store:
        jumping = store.walk()
        await jumping.open(1)
        for uid in (35, 3, 33):
            await jumping.open(uid, behind=COUNT)
            assert store.left == walk._ALL_OCTETS


async def test_what_was_asked_for_already_is_read_up_to_its_bound(filled, tmp_path, monkeypatch):
    most = 10 * len(octets_of(10))
    monkeypatch.setattr(walk, "_FIRST_OCTETS", 1)
    monkeypatch.setattr(walk, "_MOST_OCTETS", most)
    async with opened(filled, tmp_path) as store:
        for behind, read in ((0, 0), (3, 3), (COUNT, 10)):
            on_foot = store.walk()
            await on_foot.open(10, behind=behind)
            assert walk._ALL_OCTETS - store.left == read * len(octets_of(10))
            on_foot.close()


async def test_a_client_that_jumps_is_not_read_ahead_for(filled, tmp_path):
    async with opened(filled, tmp_path) as store:
        jumping = store.walk()
        for uid in (1, 35, 3, 33):
            await jumping.open(uid)
            held = walk._ALL_OCTETS - store.left
            assert (held > 0) == (uid == 1)  # whoever begins is taken for one who goes on
        assert len(store.questions) == 4


async def test_a_peek_takes_nothing_away_and_reads_nothing_ahead(filled, tmp_path):
    async with opened(filled, tmp_path) as store:
        peeking = store.walk()
        for uid in (1, 2):
            assert there(await peeking.open(uid, peek=True)) == octets_of(uid)
        assert store.left == walk._ALL_OCTETS
        for uid in range(1, 10):
            await peeking.open(uid)
            await peeking.open(uid + 1, peek=True)
        assert len(store.questions) == 3


async def test_new_mail_is_no_part_of_the_walk(filled, tmp_path):
    async with opened(filled, tmp_path) as store:
        early = store.walk(2)
        await early.open(1)
        assert early.at_once(2) is not None
        assert early.at_once(3) is None


async def test_all_walks_together_stay_within_their_budget(filled, tmp_path):
    async with opened(filled, tmp_path) as store:
        store.mail._source.budget.left = 10_000
        walks = [store.walk() for _ in range(10)]
        for uid in range(1, COUNT + 1):
            for each in walks:
                assert there(await each.open(uid)) == octets_of(uid)
                assert 0 <= store.left <= 10_000
        for each in walks:
            each.close()
        assert store.left == 10_000


async def test_a_walk_that_was_closed_while_it_read_keeps_nothing(filled, tmp_path):
    async with opened(filled, tmp_path) as store:
        closed = store.walk()
        closed.close()
        await closed.open(1)
        assert store.left == walk._ALL_OCTETS


async def test_a_damaged_message_is_named_when_its_turn_comes(filled, tmp_path):
    async with opened(filled, tmp_path) as store:
        maildrops.overwrite(filled, 5, octets_of(6))
        on_foot = store.walk()
        for uid in range(1, COUNT + 1):
            if uid == 5:
                with pytest.raises(MessageDamaged, match="message 5 is damaged"):
                    await on_foot.open(uid)
            else:
                assert there(await on_foot.open(uid)) == octets_of(uid)


async def test_a_message_that_has_gone_is_told_and_the_walk_goes_on(filled, tmp_path):
    async with opened(filled, tmp_path) as store:
        await store.mail.write(expunge, Expunge(ANNA_ID, [4]))
        on_foot: Walk = store.walk()
        with pytest.raises(MessageGone):
            await on_foot.open(4)
        assert there(await on_foot.open(5)) == octets_of(5)
        assert store.left < walk._ALL_OCTETS
