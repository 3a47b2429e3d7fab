"""PostgreSQL is restarted under load, and hosts that share it die: no mail is lost or doubled."""

from __future__ import annotations

import asyncio
import itertools
import poplib
import random
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from mailstack.store import migrate
from mailstack.store.engine import Database
from tests.stories.load import Record, check_maildrops, collect, deliver, persist
from tests.stories.test_processes import freed, serving
from tests.support import postgresql
from tests.support.appliance import Appliance
from tests.support.postgresql import Server

KEPT = ("anna", "ben")
COLLECTED = "carl"
CONNECTIONS = 6


@asynccontextmanager
async def loaded(record: Record, *appliances: Appliance) -> AsyncIterator[None]:
    """Clients that deliver to all accounts and collect one, on every host; they never give up."""
    numbers = itertools.count()

    async def send(appliance: Appliance) -> None:
        name = f"{appliance.host}.{next(numbers)}"
        await deliver(appliance, record, random.Random(name), name, (*KEPT, COLLECTED))

    attempts: list[Callable[[], Coroutine[None, None, None]]] = []
    for each in appliances:
        attempts += [partial(send, each)] * CONNECTIONS
        attempts.append(partial(collect, each, record, COLLECTED))
    clients = [asyncio.create_task(persist(attempt)) for attempt in attempts]
    try:
        yield
    finally:
        for client in clients:
            client.cancel()
        ended = await asyncio.gather(*clients, return_exceptions=True)
        assert [each for each in ended if not isinstance(each, asyncio.CancelledError)] == []


async def goes_on(record: Record, *, messages: int = 50, sessions: int = 3) -> None:
    """Wait until so much more was delivered, and collected."""
    messages, sessions = len(record.acknowledged) + messages, record.sessions + sessions
    while len(record.acknowledged) < messages or record.sessions < sessions:
        await asyncio.wait_for(record.progress.wait(), timeout=30)
        record.progress.clear()


async def both_are_refused(record: Record) -> None:
    """Wait until senders and readers have been turned away."""
    before = set(record.refused.elements())
    record.refused.clear()
    while not any(r[:1] == b"4" for r in record.refused) or not any(r[:1] == b"-" for r in record.refused):
        await asyncio.wait_for(record.progress.wait(), timeout=30)
        record.progress.clear()
    record.refused.update(before)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[tuple[Server, Appliance]]:
    """A PostgreSQL server for this test alone, and an appliance on it."""
    with postgresql.temporary_directory() as directory, postgresql.server(directory) as server:
        url = postgresql.create_database(server.url, "mail")
        database = Database(url)
        migrate.upgrade(database, lambda text: None)
        database.dispose()
        with Appliance(tmp_path, database_url=url) as made:
            made.add_accounts(*KEPT, COLLECTED)
            yield server, made


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
async def test_a_restart_under_load_is_a_pause(
    own_server: tuple[Server, Appliance], sent: signal.Signals
) -> None:
    server, appliance = own_server
    process = await asyncio.to_thread(appliance.start)
    record = Record()
    held = await asyncio.to_thread(appliance.pop3, "ben")
    async with loaded(record, appliance):
        await goes_on(record)
        for _ in range(2):
            await asyncio.to_thread(server.stop, sent)
            await both_are_refused(record)
            await asyncio.to_thread(server.start)
            await goes_on(record)
    assert process.running
    refusals = {reply for reply in record.refused if not reply.startswith((b"4", b"-ERR [SYS/TEMP]"))}
    assert refusals == set()
    # Whose lock was lost has been told, and the connection is closed; the maildrop is whoever's is next.
    with pytest.raises(poplib.error_proto, match=r"-ERR \[SYS/TEMP\]"):
        held.stat()
    with pytest.raises((EOFError, OSError, poplib.error_proto)):
        held.stat()
    await asyncio.to_thread(check_maildrops, appliance, record, KEPT, COLLECTED)
    assert "Traceback" not in appliance.said()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
def test_nobody_hears_of_a_restart_that_is_over(
    own_server: tuple[Server, Appliance], sent: signal.Signals
) -> None:
    server, appliance = own_server
    process = appliance.start("--workers", "2")

    workers = process.children()

    def use_both() -> None:
        """The kernel says which of them accepts."""
        used: set[int] = set()
        for number in range(200):
            session = appliance.pop3("anna")
            used.update(filter(serving, workers))
            session.retr(1)
            session.quit()
            assert appliance.send(b"Subject: one more\r\n\r\n", "anna")[0] == 250
            if len(used) == 2 and number >= 10:
                break
        assert len(used) == 2

    assert appliance.send(b"Subject: first\r\n\r\n", "anna")[0] == 250
    use_both()
    server.stop(sent)
    server.start()
    use_both()
    assert "Traceback" not in appliance.said()


async def test_hosts_that_share_a_database_die_in_turn(
    appliance_on_postgresql: Appliance, tmp_path: Path
) -> None:
    first = appliance_on_postgresql
    first.add_accounts(COLLECTED)
    (folder := tmp_path / "second").mkdir()
    with Appliance(folder, database_url=first.url) as second:
        for each in (first, second):
            await asyncio.to_thread(each.start)
        record = Record()
        async with loaded(record, first, second):
            await goes_on(record)
            for dying, other in ((first, second), (second, first)):
                held = await asyncio.to_thread(freed, dying)
                await asyncio.to_thread(dying.kill)
                # What the dead host held is free at once, and the other one serves as if nothing were.
                (await asyncio.to_thread(freed, other)).quit()
                held.close()
                await goes_on(record)
                await asyncio.to_thread(dying.start)
                await goes_on(record)
        refusals = {reply for reply in record.refused if not reply.startswith(b"-ERR [IN-USE]")}
        assert refusals == set()
        for each in (first, second):
            await asyncio.to_thread(check_maildrops, each, record, KEPT, COLLECTED)
            assert "Traceback" not in each.said()
