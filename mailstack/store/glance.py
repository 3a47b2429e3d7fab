"""Reads so small that the event loop does them itself: one row by its key, of a database on this disk.

A hand-over to a thread and back costs ten times what the row does. Nor does the loop stand still for
it: in SQLite's WAL mode a reader waits for no writer, and the two or three pages on the way to the row
are those that every login and every delivery goes through, so they are in memory. What cannot be had
at once (the database is a server, or in repair, or damaged) is left to a reader thread, which waits for
it, and finds the words for what is wrong.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from mailstack.errors import StoreUnavailable
from mailstack.store.engine import Database
from mailstack.store.sqlite import given_up_on_error

P = ParamSpec("P")
R = TypeVar("R")


class Glance:
    """Owns one connection; belongs to the event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._closed = not database.is_sqlite

    def at(
        self, function: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R | None:
        """What one reading function returns now, or None where only a reader thread can tell.

        The function has to run one prepared statement that finds its row by a key: each is a
        transaction of its own, which sees all that was committed before.
        """
        if self._connection is None:
            self._begin_connecting()
            return None
        try:
            return function(self._connection, *args, **kwargs)
        except (StoreUnavailable, sqlite3.Error):
            self._disconnect()
            return None

    async def connected(self) -> None:
        """Wait until it sees, or cannot."""
        self._begin_connecting()
        if self._connecting is not None:
            await self._connecting

    async def close(self) -> None:
        """Give the connection back, and tell nothing any more."""
        self._closed = True
        if self._connecting is not None:
            await self._connecting
        self._disconnect()

    def _begin_connecting(self) -> None:
        if self._connection is None and self._connecting is None and not self._closed:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        try:
            with suppress(StoreUnavailable):  # then the next one tries again
                self._connection = await asyncio.to_thread(self._made)  # it may wait for a lock
        finally:
            self._connecting = None

    def _made(self) -> Connection:
        with self._database.translated():
            connection = self._database.engine.connect()
            with given_up_on_error(connection):
                connection.exec_driver_sql("PRAGMA busy_timeout=0")
                connection.rollback()
            return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()  # nobody else wants one that does not wait
            connection.close()
