"""The sign of life comes after a read through the store, and not before."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import Connection, text

from mailstack.service import heartbeat
from mailstack.service.heartbeat import Heartbeat
from mailstack.service.reload import SWAPPED
from mailstack.service.systemd import Manager
from mailstack.settings import KEYS
from mailstack.store.engine import Database
from mailstack.store.store import Store

WATCHDOG_SECONDS = 0.15


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.setblocking(False)
        yield bound


@pytest.fixture
def manager(heard: socket.socket) -> Iterator[Manager]:
    """The same as a process sees it."""
    watchdog = str(int(WATCHDOG_SECONDS * 1_000_000))
    with closing(Manager.of({"NOTIFY_SOCKET": heard.getsockname(), "WATCHDOG_USEC": watchdog})) as found:
        yield found


async def next_said(heard: socket.socket) -> str:
    return (await asyncio.wait_for(asyncio.get_running_loop().sock_recv(heard, 4096), 20)).decode()


def drained(heard: socket.socket) -> None:
    try:
        while heard.recv(4096):
            pass
    except BlockingIOError:
        pass


async def says_nothing_until(go_on: threading.Event, heard: socket.socket, *, after: float) -> None:
    """What is stuck until then is no sign of life, so many seconds after it has begun."""
    await asyncio.sleep(after)
    drained(heard)
    await asyncio.sleep(4 * WATCHDOG_SECONDS)
    with pytest.raises(BlockingIOError):
        heard.recv(4096)
    go_on.set()
    assert "WATCHDOG=1" in await next_said(heard)


async def test_no_read_no_sign_of_life(
    database: Database, tmp_path: Path, heard: socket.socket, manager: Manager
) -> None:
    store = Store(database, state_dir=tmp_path, reserve_octets=0)
    crowd = SimpleNamespace(sessions=2)
    go_on = threading.Event()
    async with Heartbeat(manager, store, ["smtp"], [crowd]).kept():
        assert await next_said(heard) == "WATCHDOG=1\nSTATUS=serving smtp; 2 connections"
        stuck = [asyncio.create_task(store.read(lambda _: go_on.wait())) for _ in range(8)]
        await says_nothing_until(go_on, heard, after=2 * WATCHDOG_SECONDS)
        await asyncio.gather(*stuck)
    await store.close()


async def test_a_writer_that_does_not_come_back_is_no_sign_of_life(
    database: Database,
    tmp_path: Path,
    heard: socket.socket,
    manager: Manager,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heartbeat, "PATIENCE_SECONDS", 2 * WATCHDOG_SECONDS)
    store = Store(database, state_dir=tmp_path, reserve_octets=0)
    go_on = threading.Event()

    def stuck(_: Connection, jobs: Sequence[None]) -> Sequence[None]:
        go_on.wait()
        return jobs

    async with Heartbeat(manager, store, ["smtp"], []).kept():
        writing = asyncio.create_task(store.write(stuck, None))
        await next_said(heard)
        await says_nothing_until(go_on, heard, after=3 * WATCHDOG_SECONDS)
        await writing
    await store.close()


async def test_a_store_that_refuses_is_told_and_is_no_reason_to_be_killed(
    database: Database, tmp_path: Path, heard: socket.socket, manager: Manager
) -> None:
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    store = Store(database, state_dir=tmp_path, reserve_octets=0)
    async with Heartbeat(manager, store, ["pop3"], []).kept():
        said = await next_said(heard)
    await store.close()
    assert said.startswith("WATCHDOG=1\nSTATUS=serving pop3; 0 connections; the store refuses: ")


def test_a_watchdog_of_another_process_is_not_ours() -> None:
    assert Manager.of({"WATCHDOG_USEC": "30000000"}).watchdog_seconds == 30
    assert Manager.of({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}).watchdog_seconds is None
    assert Manager.of({}).watchdog_seconds is None


def test_what_a_reload_swaps_are_settings() -> None:
    assert set(KEYS) >= SWAPPED
