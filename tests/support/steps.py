"""How much SQLite does, in its own steps: a number that is the same on every machine."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection


def steps(connection: Connection, work: Callable[[], object]) -> int:
    """How many instructions of its virtual machine the work takes on this connection."""
    taken = 0

    def step() -> None:
        nonlocal taken
        taken += 1

    driver = connection.connection.driver_connection
    assert driver is not None
    driver.set_progress_handler(step, 1)
    work()
    driver.set_progress_handler(None, 1)
    return taken
