"""An upgrade, or the way back, that fails at any statement leaves the schema and the mail as they were."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from mailstack.errors import Temporary
from mailstack.store import integrity, migrate, rehearsal, schema
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
    return found, rehearsal.fingerprint(database)


def committed(points: list[str]) -> bool:
    """Whether a COMMIT came after the last new revision was written."""
    written = [number for number, asked in enumerate(points) if "alembic_version SET" in asked]
    return bool(written) and "COMMIT" in points[written[-1] :]


def fails_everywhere(
    database: Database, faults: Faults, kind: Kind, *, way: Way, back: Way, target: str
) -> int:
    """Go that way with a fault one point further each time, until there are no more; how many points."""
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
        if state(database) == (target, before[1]):
            # The fault did no harm, or it came too late, or it was COMMIT's answer that got lost.
            reached = number + (kind is Kind.UNHEARD)
            assert error is None or committed(faults.points[:reached]), faults.struck
            back(database)
        assert state(database) == before, faults.struck
        assert error is None or isinstance(error, Temporary), faults.struck
        if database.is_sqlite:
            with database.reading() as connection:
                assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1, faults.struck
    raise AssertionError


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_a_fault_at_every_point_of_an_upgrade_and_of_the_way_back(database: Database, kind: Kind) -> None:
    furnish(database)
    faults = Faults(database)
    points = fails_everywhere(database, faults, kind, way=down, back=up, target="0001")
    points += fails_everywhere(database, faults, kind, way=up, back=down, target=schema.HEAD)
    assert points > 80
    # What could be brought back, and surrogates, mean nothing to the oldest schema.
    assert all(each.endswith("is in no maildrop") for each in findings(database))
    for _ in integrity.check(database, repair=True):
        pass
    assert findings(database) == []
