"""What a message, a poll or a fetch may cost, in counts that no other load on the machine changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.counts.rig import SESSIONS, Counted, Counts, started
from tests.counts.rows import ROWS, Row, prepare
from tests.support import postgresql
from tests.support.appliance import POP3_PORT, SMTP_PORT, Appliance, copy_template

IDLE = 200


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Counted]:
    """A counted server on SQLite."""
    with Appliance(tmp_path_factory.mktemp("counts"), module="tests.counts.counted") as appliance:
        copy_template(sqlite_template, appliance)
        counted = started(appliance)
        prepare(counted)
        yield counted
        appliance.stop()


@pytest.fixture(scope="module")
def server_on_postgresql(
    tmp_path_factory: pytest.TempPathFactory, postgresql_server: str
) -> Iterator[Counted]:
    """A counted server on PostgreSQL."""
    url = postgresql.create_database(postgresql_server, "counts", template="template")
    folder = tmp_path_factory.mktemp("counts")
    with Appliance(folder, database_url=url, module="tests.counts.counted") as appliance:
        counted = started(appliance)
        prepare(counted)
        yield counted
        appliance.stop()
    postgresql.drop_database(postgresql_server, "counts")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_unit_of_work_costs_no_more_than_its_bounds(server: Counted, row: Row) -> None:
    def hold(found: Counts) -> bool:
        return row.bounds.hold(found) and found.blocks <= row.kept

    # What leaves objects behind does so each time; what is grown once (a table of routes, say) does not.
    found = server.costs(row.work, row.before, hold)
    assert row.bounds.hold(found), found
    assert row.bounds.slack(found) == []
    assert found.blocks <= row.kept, "a unit of work leaves objects behind"


@pytest.mark.parametrize("row", [row for row in ROWS if row.on_postgresql], ids=lambda row: row.name)
def test_it_costs_no_more_statements_on_postgresql(server_on_postgresql: Counted, row: Row) -> None:
    assert row.on_postgresql is not None
    statements, commits = row.on_postgresql

    def hold(found: Counts) -> bool:
        return found.statements <= statements and found.commits <= commits

    found = server_on_postgresql.costs(row.work, row.before, hold)
    assert hold(found), found


@pytest.mark.parametrize(("port", "blocks"), [(SMTP_PORT, 18), (POP3_PORT, 22)])
def test_an_idle_connection_holds_few_objects(server: Counted, port: int, blocks: int) -> None:
    def held() -> float:
        before = server.now()
        with ExitStack() as stack:
            for _ in range(IDLE):
                stack.enter_context(server.wire(port))
            return server.now().per(before, IDLE).blocks

    # What other work has put off may come just then, so the least of some counts.
    assert min(held() for _ in range(3)) <= blocks


def test_a_session_that_is_logged_in_holds_few_objects(server: Counted) -> None:
    def held() -> float:
        before = server.now()
        with ExitStack() as stack:
            for name in SESSIONS:
                stack.enter_context(server.session(name))
            return server.now().per(before, len(SESSIONS)).blocks

    held()  # what is remembered of a login is no session's
    assert min(held() for _ in range(3)) <= 40
