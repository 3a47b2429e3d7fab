"""An upgrade, or the way back, that fails at any statement leaves the schema and the mail as they were."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from mailstack.errors import Temporary
from mailstack.store import integrity, migrate, schema, snapshots
from mailstack.store.engine import Database
from tests.store.operations import furnish
from tests.support.contents import findings
from tests.support.faults import Faults, Kind

Way = Callable[[Database], object]


def up(database: Database) -> None:
    migrate.upgrade(database, lambda said: None)


def down(database: Database) -> None:
    migrate.downgrade(database, lambda said: None, revision="0001")


def state(database: Database) -> tuple[str | None, str]:
    with database.reading() as connection:
        found = schema.revision(connection)
    return found, snapshots.fingerprint(database)


def fails_everywhere(database: Database, faults: Faults, way: Way, kind: Kind, target: str) -> int:
    """Go that way with a fault one point further each time, until it comes through; how many points."""
    before = state(database)
    for number in itertools.count():
        error = None
        with faults.at(number, kind):
            try:
                way(database)
            except Exception as raised:
                error = raised
        if faults.struck is None:
            assert error is None
            assert state(database) == (target, before[1])
            return number
        done = state(database) == (target, before[1])
        if done:  # all that was left to do is outside of the transaction, or the answer to COMMIT was lost
            behind = "foreign_keys=ON" in faults.struck or faults.struck.startswith("SELECT")
            assert behind or kind is Kind.UNHEARD, faults.struck
        else:
            assert state(database) == before, faults.struck
        assert error is None or isinstance(error, Temporary), faults.struck
        if database.is_sqlite:
            with database.reading() as connection:
                assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1, faults.struck
        if done:
            return number + 1
    raise AssertionError


@pytest.mark.parametrize(
    "kind",
    [Kind.CUT, *(pytest.param(kind, marks=pytest.mark.long) for kind in Kind if kind is not Kind.CUT)],
    ids=lambda kind: kind.value,
)
@pytest.mark.timeout(600)
def test_a_fault_at_every_point_of_an_upgrade_and_of_the_way_back(database: Database, kind: Kind) -> None:
    furnish(database)
    faults = Faults(database)
    points = fails_everywhere(database, faults, down, kind, "0001")
    down(database)
    points += fails_everywhere(database, faults, up, kind, schema.HEAD)
    up(database)
    assert points > 40
    # What could be brought back, and surrogates, mean nothing to the oldest schema.
    assert all(each.endswith("is in no maildrop") for each in findings(database))
    for _ in integrity.check(database, repair=True):
        pass
    assert findings(database) == []
