"""Content goes after its entries: in slices, whoever removed them and whatever happened since."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest
from sqlalchemy import insert, select, update

from mailstack.mail.address import Mailbox
from mailstack.store import accounts, leftovers, migrate, removal, undo
from mailstack.store.engine import Database
from mailstack.store.leftovers import Slice
from mailstack.store.removal import Expunge
from mailstack.store.tables import REMOVED_BY_CLIENT, entry, message
from tests.support import maildrops
from tests.support.contents import findings
from tests.support.leftovers import (
    ALL,
    JO,
    JO_ID,
    KIM,
    KIM_ID,
    expunge,
    filled,
    noted,
    numbers,
    parts,
    swept,
)

__all__ = ["filled"]


# -- one transaction ---------------------------------------------------------------------------------


def test_what_is_removed_is_noted_and_adds_up_until_it_goes(filled: Database) -> None:
    expunge(filled, JO_ID, 4, 6)
    assert noted(filled) == [4, 6]
    assert numbers(filled) == [1, 2, 3, 4, 5, 6]
    assert findings(filled) == []
    assert swept(filled) == 2
    assert (noted(filled), numbers(filled)) == ([], [1, 2, 3, 5])
    with filled.reading() as connection:
        assert parts(connection) == 4
    assert findings(filled) == []
    assert swept(filled) == 0


def test_who_still_has_a_message_keeps_it(filled: Database) -> None:
    expunge(filled, JO_ID, 1, 2)
    expunge(filled, KIM_ID, 2, removed_by=REMOVED_BY_CLIENT)
    assert swept(filled) == 2
    assert numbers(filled) == [1, 2, 3, 4, 5, 6]
    with filled.writing() as connection:
        assert [each.uid for each in undo.bring_back(connection, KIM_ID)] == [2]
    expunge(filled, KIM_ID, 1, 2)
    assert swept(filled) == 2
    assert numbers(filled) == [3, 4, 5, 6]
    assert findings(filled) == []


def test_all_who_remove_entries_note_them(filled: Database) -> None:
    expunge(filled, JO_ID, 4, removed_by=REMOVED_BY_CLIENT)
    with filled.writing() as connection:
        assert undo.forget(connection, [undo.Forget(REMOVED_BY_CLIENT, 1 << 60)]) == [1]
    assert noted(filled) == [4]
    expunge(filled, JO_ID, 5, removed_by=REMOVED_BY_CLIENT)
    with filled.writing() as connection:
        accounts.remove_account(connection, Mailbox("jo", "example.org"))
    assert sorted(noted(filled)) == [1, 2, 3, 4, 5, 6]
    assert findings(filled) == []
    assert swept(filled) == 6
    assert numbers(filled) == [1, 2, 3]


def test_a_message_may_be_noted_twice(filled: Database) -> None:
    expunge(filled, JO_ID, 1)
    expunge(filled, KIM_ID, 1)
    assert noted(filled) == [1, 1]
    assert swept(filled, Slice(messages=1, octets=0)) == 1
    assert 1 not in numbers(filled)
    assert swept(filled, Slice(messages=1, octets=0)) == 1
    assert noted(filled) == []


@pytest.mark.parametrize(
    ("job", "steps"),
    [
        (Slice(messages=2, octets=1 << 30), [[4, 5], [6]]),
        (Slice(messages=9, octets=30), [[4, 5], [6]]),  # 6 is larger than that, and goes alone
        (Slice(messages=9, octets=0), [[4], [5], [6]]),
        (Slice(messages=9, octets=1 << 30, seconds=0), [[4, 5, 6]]),  # one bundle
        (Slice(messages=9, octets=30, seconds=0), [[4, 5], [6]]),
    ],
)
def test_a_slice_is_bounded(filled: Database, job: Slice, steps: Sequence[Sequence[int]]) -> None:
    expunge(filled, JO_ID, 4, 5, 6)
    for gone in steps:
        before = numbers(filled)
        assert swept(filled, job) == len(gone)
        assert sorted(set(before) - set(numbers(filled))) == list(gone)
        assert findings(filled) == []
    assert swept(filled, job) == 0


def test_an_older_schema_has_nothing_left_over(filled: Database) -> None:
    expunge(filled, JO_ID, 1, 4, 6)
    assert migrate.downgrade(filled, lambda said: None, revision="0007")
    with filled.reading() as connection:
        left = connection.execute(select(message.c.id).order_by(message.c.id)).scalars().all()
        assert (left, parts(connection)) == ([1, 2, 3, 5], 4)
    assert migrate.upgrade(filled, lambda said: None)
    assert findings(filled) == []


# -- several hosts -----------------------------------------------------------------------------------


@pytest.fixture
def hosts(postgresql_url: str) -> Iterator[tuple[Database, Database]]:
    """One database, as two hosts have it."""
    both = Database(postgresql_url), Database(postgresql_url)
    yield both
    for each in both:
        each.dispose()


def test_two_hosts_that_remove_the_last_two_entries_leave_nothing(hosts: tuple[Database, Database]) -> None:
    here, there = hosts
    maildrops.add_accounts(here, JO, KIM)
    maildrops.deposit(here, b"Subject: x\r\n\r\n", JO, KIM)
    with here.writing() as ours, there.writing() as theirs:
        removal.expunge(ours, [Expunge(JO_ID, [1])])
        removal.expunge(theirs, [Expunge(KIM_ID, [1])])  # neither sees the other's, nor waits for it
    assert swept(here, Slice(messages=1, octets=0)) == 1
    assert swept(here) == 1
    assert numbers(here) == []


def test_the_sweep_between_the_two_leaves_it_to_the_second(hosts: tuple[Database, Database]) -> None:
    here, there = hosts
    maildrops.add_accounts(here, JO, KIM)
    maildrops.deposit(here, b"Subject: x\r\n\r\n", JO, KIM)
    with there.writing() as theirs:
        removal.expunge(theirs, [Expunge(KIM_ID, [1])])
        expunge(here, JO_ID, 1)
        assert swept(here) == 1
        assert numbers(here) == [1]
    assert swept(here) == 1
    assert numbers(here) == []


def test_two_sweeps_take_different_notes(hosts: tuple[Database, Database]) -> None:
    here, there = hosts
    maildrops.add_accounts(here, JO)
    for _ in range(3):
        maildrops.deposit(here, b"Subject: x\r\n\r\n", JO)
    expunge(here, JO_ID, 1, 2, 3)
    with here.writing() as ours:
        assert leftovers.sweep(ours, [Slice(messages=2, octets=1 << 20)]) == [True]
        with there.writing() as theirs:
            assert leftovers.sweep(theirs, [ALL]) == [False]
        assert noted(here) == [1, 2]
    assert (numbers(here), noted(here)) == ([], [])


def test_a_sweep_waits_for_whoever_enters_the_message_again(hosts: tuple[Database, Database]) -> None:
    here, there = hosts
    maildrops.add_accounts(here, JO, KIM)
    maildrops.deposit(here, b"Subject: x\r\n\r\n", JO, KIM)
    expunge(here, JO_ID, 1)
    with here.reading() as connection:
        kept = dict(connection.execute(select(entry)).mappings().one())
    expunge(here, KIM_ID, 1)
    done: list[int] = []
    sweeping = threading.Thread(target=lambda: done.append(swept(there)))
    with here.writing() as connection:  # as a restore does
        connection.execute(select(message.c.id).where(message.c.id == 1).with_for_update()).one()
        connection.execute(insert(entry).values(kept))
        added = {"messages": 1, "octets": kept["octets"]}
        connection.execute(update(accounts.account).where(accounts.account.c.id == KIM_ID).values(added))
        sweeping.start()
        _await_a_waiting(here)
    sweeping.join(30)
    assert done == [2]
    assert numbers(here) == [1]
    assert findings(here) == []


def _await_a_waiting(database: Database) -> None:
    """Until a backend of the database waits for a lock."""
    wanted = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    for _ in range(1000):
        with database.reading() as connection:
            if connection.exec_driver_sql(wanted).scalar_one():
                return
        threading.Event().wait(0.01)
    raise AssertionError("nobody waits")
