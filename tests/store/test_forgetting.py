"""What can no longer be brought back is found by an index, however much else still can be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event, update

from mailstack.store import browse, removal, undo
from mailstack.store.engine import Database
from mailstack.store.removal import Expunge
from mailstack.store.sqlite import driver_of
from mailstack.store.tables import (
    REMOVED_BY_ADMIN,
    REMOVED_BY_CLIENT,
    REMOVED_BY_HOUSEKEEPING,
    removed,
)
from mailstack.store.undo import Forget
from tests.support import maildrops
from tests.support.steps import steps

JO, JO_ID = "jo@example.org", 1

FORGOTTEN = (
    Forget(REMOVED_BY_CLIENT, 2),
    Forget(REMOVED_BY_HOUSEKEEPING, 1 << 60),  # what the client has removed is older, and stays
    Forget(REMOVED_BY_ADMIN, 1 << 60),
)


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    """Of SQLite, whose steps can be counted."""
    made = Database(sqlite_url)
    yield made
    made.dispose()


def test_forgetting_does_not_take_longer_where_much_can_be_brought_back(database: Database) -> None:
    maildrops.add_accounts(database, JO)
    costs = []
    for kept in (0, 300):
        for _ in range(kept + 3):
            maildrops.deposit(database, b"Subject: x\r\n\r\n", JO)
        with database.writing() as connection:
            new = [each.uid for each in browse.walk(database, JO_ID)]
            removal.expunge(connection, [Expunge(JO_ID, new, REMOVED_BY_CLIENT)])
            connection.execute(update(removed).where(removed.c.uid.in_(new[-3:])).values(removed_at=1))
            costs.append(steps(connection, lambda: undo.forget(connection, FORGOTTEN)))
            assert undo.counted(connection, JO_ID)[0] == kept
    assert costs[1] < costs[0] + 20  # a row more is looked at here and there


def test_forgetting_looks_by_an_index_for_what_one_of_them_has_removed(database: Database) -> None:
    asked: list[tuple[str, Any]] = []
    with database.writing() as connection:
        event.listen(connection, "before_cursor_execute", lambda *said: asked.append((said[2], said[3])))
        undo.forget(connection, FORGOTTEN)
        plans = [driver_of(connection).execute(f"EXPLAIN QUERY PLAN {each}", by) for each, by in asked]
        (said,) = {row[3] for plan in plans for row in plan}
    index = "ix_removed_removed_by_removed_at (removed_by=? AND removed_at<?)"
    assert said == f"SEARCH removed USING INDEX {index}"
