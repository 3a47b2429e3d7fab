"""A process that writes, and work for it to do."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import Connection, insert
from sqlalchemy import select as query

from mailstack.errors import MessageGone
from mailstack.store import writing_process
from mailstack.store.engine import Database
from mailstack.store.tables import state
from mailstack.store.writer import Writer


class Wrong(Exception):
    """What comes back as it is."""


class Untold(Exception):
    """What no other process can be told."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(f"because of {reason}")
        self.reason = reason


def note(connection: Connection, jobs: Sequence[str]) -> list[str]:
    for name in jobs:
        connection.execute(insert(state).values(name=name, value=os.getpid()))
        if name == "wrong":
            raise Wrong("that one")
        if name == "untold":
            raise Untold(reason="its constructor")
        if name == "gone":
            raise MessageGone("a fact")
    return [name.upper() for name in jobs]


def wait_for(connection: Connection, jobs: Sequence[str]) -> list[None]:
    """Work: wait until somebody has written to each named pipe."""
    for name in jobs:
        Path(name).read_bytes()
    return [None] * len(jobs)


def noted(database: Database) -> dict[str, int]:
    with database.reading() as connection:
        rows = connection.execute(query(state.c.name, state.c.value).order_by(state.c.name))
        return {name: value for name, value in rows if name.islower()}


@asynccontextmanager
async def writing(database: Database) -> AsyncIterator[tuple[Writer, int]]:
    """A writer, and the process that writes for it."""
    process = writing_process.fork(database.url.render_as_string(hide_password=False))
    writer = Writer(process.joined)
    try:
        yield writer, process.pid
    finally:
        await asyncio.wait_for(writer.close(), 20)
        assert not os.path.exists(f"/proc/{process.pid}"), "it has ended, and was waited for"  # noqa: ASYNC240


async def outcomes(*jobs) -> list[object]:
    return await asyncio.gather(*jobs, return_exceptions=True)


def files_of(pid: int) -> list[str]:
    folder = Path(f"/proc/{pid}/fd")
    return [os.readlink(folder / name) for name in sorted(os.listdir(folder), key=int)]
