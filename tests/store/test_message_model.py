"""Any history of maildrops, against a model that is a dictionary, on both databases."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from mailstack.mail.spool import PART_OCTETS
from mailstack.store import leftovers, listing, messages
from mailstack.store.engine import Database
from mailstack.store.leftovers import Slice
from mailstack.store.removal import Expunge
from mailstack.store.tables import content, leftover, message
from tests.store.deposits import NAMES, a_deposit, expunged, spooled
from tests.support import maildrops
from tests.support.fetched import whole


@dataclass
class Drop:
    """What a maildrop should be."""

    entries: dict[int, bytes] = field(default_factory=dict)
    last_uid: int = 0


sizes = st.sampled_from([0, 1, 2, 300, 5000, PART_OCTETS, PART_OCTETS + 1])
# Hypothesis invents every field of a named tuple, those with defaults too, and numbers that no note can have.
slices = st.builds(
    Slice,
    st.integers(1, 4),
    st.sampled_from([0, 5000, PART_OCTETS]),
    seconds=st.sampled_from([0.0, 60.0]),
    notes=st.lists(st.integers(1, 40), max_size=1),
)
deposits = st.tuples(sizes, st.sets(st.sampled_from(NAMES), min_size=1), st.binary(max_size=3))
steps = st.one_of(
    st.tuples(st.just("deposit"), st.lists(deposits, min_size=1, max_size=4)),
    st.tuples(
        st.just("expunge"),
        st.lists(st.tuples(st.sampled_from(NAMES), st.sets(st.integers(1, 12), max_size=6)), max_size=3),
    ),
    st.tuples(st.just("sweep"), st.lists(slices, max_size=2)),
)


@given(st.lists(steps, max_size=8))
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_history_leaves_what_the_model_has(database: Database, people, history) -> None:
    with suppress(_Undone), database.writing() as connection:
        drops = {name: Drop() for name in NAMES}
        alive: dict[int, set[tuple[str, int]]] = {}
        for kind, jobs in history:
            if kind == "deposit":
                _deposit(connection, people, drops, alive, jobs)
            elif kind == "expunge":
                _expunge(connection, people, drops, alive, jobs)
            else:
                leftovers.sweep(connection, jobs)
            _compare(connection, people, drops, alive)
        maildrops.sweep(connection)
        _compare(connection, people, drops, alive)
        raise _Undone


class _Undone(Exception):
    """Ends an example; the transaction rolls back."""


def _deposit(connection, people, drops, alive, jobs) -> None:
    contents = [bytes([65 + n]) * size for n, (size, _, _) in enumerate(jobs)]
    with spooled(*contents) as spools:
        made = [
            a_deposit(spool, *(people[name] for name in sorted(names)), prefix=prefix)
            for spool, (_, names, prefix) in zip(spools, jobs, strict=True)
        ]
        ids = messages.deposit(connection, made)
    for number, octets, (_, names, prefix) in zip(ids, contents, jobs, strict=True):
        assert number not in alive
        alive[number] = set()
        for name in names:
            drop = drops[name]
            drop.last_uid += 1
            drop.entries[drop.last_uid] = prefix + octets
            alive[number].add((name, drop.last_uid))


def _expunge(connection, people, drops, alive, jobs) -> None:
    expected = []
    for name, uids in jobs:
        gone = drops[name].entries.keys() & uids
        expected.append(len(gone))
        for uid in gone:
            del drops[name].entries[uid]
            for holders in alive.values():
                holders.discard((name, uid))
    made = [Expunge(people[name], sorted(uids)) for name, uids in jobs]
    assert expunged(connection, made) == expected


def _compare(connection, people, drops, alive) -> None:
    for name, drop in drops.items():
        account_id = people[name]
        total = sum(map(len, drop.entries.values()))
        snapshot = messages.snapshot(connection, account_id)
        assert snapshot[:3] == (len(drop.entries), total, drop.last_uid)
        found = listing.listing(connection, account_id, drop.last_uid)
        assert list(found.uids) == sorted(drop.entries)
        assert list(found.octets) == [len(drop.entries[uid]) for uid in found.uids]
        unique_ids = listing.unique_ids(connection, account_id, drop.last_uid)
        assert [int(each.rpartition(".")[2]) for each in unique_ids] == sorted(drop.entries)
        for uid, wanted in drop.entries.items():
            assert whole(connection, account_id, uid) == wanted
    living = {number for number, holders in alive.items() if holders}
    there = set(connection.execute(select(message.c.id)).scalars())
    noted = set(connection.execute(select(leftover.c.message_id)).scalars())
    assert living <= there <= living | noted
    parts = connection.execute(select(func.count()).select_from(content)).scalar_one()
    octets = connection.execute(select(message.c.octets)).scalars()
    assert parts == sum(-(-each // PART_OCTETS) for each in octets)
