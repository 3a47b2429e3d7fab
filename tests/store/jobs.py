"""Jobs for a writer: some note their names, and some hold it up so that others gather behind them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import Connection, event, insert, select

from mailstack.store.engine import Database
from mailstack.store.tables import state
from mailstack.store.writer import Writer
from tests.support.writing import writing


class Wrong(Exception):
    """What a guilty job does."""


def note(connection: Connection, jobs: Sequence[str]) -> list[str]:
    """Work: a row for each name; `wrong` is refused, in the middle of its batch."""
    for name in jobs:
        connection.execute(insert(state).values(name=name, value=1))
        if name == "wrong":
            raise Wrong
    return [name.upper() for name in jobs]


def noted(database: Database) -> list[str]:
    with database.reading() as connection:
        names = connection.execute(select(state.c.name).where(state.c.value == 1).order_by(state.c.name))
        return list(names.scalars())


class Stop:
    """Work that holds the thread up, so that jobs gather behind it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go = threading.Event()

    def __call__(self, connection: Connection, jobs: Sequence[None]) -> list[None]:
        self.reached.set()
        assert self.go.wait(10)
        return [None] * len(jobs)


def commits_of(database: Database) -> list[int]:
    """A list that gets another item with each commit of this process."""
    commits: list[int] = []
    if not database.is_sqlite:
        event.listen(database.engine, "commit", lambda connection: commits.append(1))
        return commits
    with database.writing() as connection:  # which is kept for all that is written later
        driver = connection.connection.driver_connection
    driver.set_trace_callback(lambda statement: commits.append(1) if statement == "COMMIT" else None)
    return commits


@asynccontextmanager
async def held_up(database: Database, stop: Stop | None = None) -> AsyncIterator[tuple[Writer, list[int]]]:
    """A writer whose thread is busy until the block ends; and what it commits, that included."""
    commits = commits_of(database)
    writer, stop = writing(database), stop or Stop()
    busy = asyncio.create_task(writer.write(stop, None))
    await asyncio.to_thread(stop.reached.wait)
    try:
        yield writer, commits
    finally:
        stop.go.set()
        await busy
        await writer.close()


async def begun(*coroutines) -> list[asyncio.Task]:
    """The tasks, each having handed its job over."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    await asyncio.sleep(0)
    return tasks


async def outcomes(tasks: list[asyncio.Task]) -> list[object]:
    return await asyncio.gather(*tasks, return_exceptions=True)
