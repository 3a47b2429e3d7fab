"""Several processes: workers on one set of sockets, roles apart on one file, hosts on one PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import poplib
import random
import re
import signal
import socket
import ssl
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.stories.load import Record, check_maildrops, collect, deliver
from tests.support.appliance import PASSWORD, POP3S_PORT, Appliance, wait_until


def open_sockets(pid: int) -> set[str]:
    """The connected TCP sockets of a process, as the kernel numbers them."""
    connected = {
        fields[9]
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
        if (fields := line.split())[3] == "01"
    }
    mine = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor))
        except FileNotFoundError:
            continue
        if found and found[1] in connected:
            mine.add(found[1])
    return mine


def serving(worker: int) -> bool:
    """Whether a process has connections."""
    try:
        return bool(open_sockets(worker))
    except FileNotFoundError:
        return False


def test_both_workers_serve(any_appliance: Appliance) -> None:
    appliance = any_appliance
    process = appliance.start("--workers", "2")
    workers = process.children()
    assert len(workers) == 2

    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(closing(appliance.smtp()))
            if all(map(serving, workers)):
                break
        assert all(map(serving, workers))

    # Whichever worker takes the mail, and whichever gives it out: it is one maildrop with one lock.
    for number in range(20):
        assert appliance.send(b"Subject: %d\r\n\r\n" % number, "anna")[0] == 250
    holding = appliance.pop3("anna")
    for _ in range(10):
        with pytest.raises(poplib.error_proto, match=r"-ERR \[IN-USE\]"):
            appliance.pop3("anna")
    assert holding.stat()[0] == 20
    holding.quit()
    appliance.pop3("anna").quit()
    appliance.stop()


def test_without_the_process_that_writes_nothing_is_accepted_and_the_server_ends(
    any_appliance: Appliance,
) -> None:
    appliance = any_appliance
    process = appliance.start()
    (writing,) = process.children()
    assert appliance.send(b"Subject: before\r\n\r\n", "anna")[0] == 250
    with closing(appliance.smtp()) as sender, closing(appliance.smtp()) as slow:
        for each in (sender, slow):
            each.mail("ben@example.net")
            each.rcpt("anna@example.test")
            assert each.docmd("DATA")[0] == 354
        os.kill(writing, signal.SIGKILL)
        sender.send(b"Subject: lost with it\r\n\r\n.\r\n")
        assert sender.getreply()[0] == 451
        # Nobody can deliver before the next one has started: it waits for no content that it could not keep.
        assert process.wait(15) == 1
        assert slow.getreply()[0] == 421
    assert 'event="writing process died"' in appliance.said()
    appliance.kill()

    appliance.start()
    with closing(appliance.pop3("anna")) as session:
        assert session.stat()[0] == 1
    assert appliance.send(b"Subject: after\r\n\r\n", "anna")[0] == 250
    appliance.stop()


def test_a_killed_worker_is_replaced(any_appliance: Appliance) -> None:
    appliance = any_appliance
    process = appliance.start("--workers", "2")
    victim, other = process.children()
    assert appliance.send(b"Subject: before\r\n\r\n", "anna")[0] == 250

    os.kill(victim, signal.SIGKILL)
    # The other one goes on meanwhile; nobody is refused.
    for _ in range(20):
        assert appliance.send(b"Subject: meanwhile\r\n\r\n", "anna")[0] == 250
    wait_until(
        lambda: len(process.children()) == 2 and victim not in process.children(), what="a new worker starts"
    )
    assert other in process.children()
    (successor,) = set(process.children()) - {other}

    with ExitStack() as stack:

        def takes_its_share() -> bool:
            stack.enter_context(closing(appliance.smtp()))
            return serving(successor)

        wait_until(takes_its_share, what="the new worker serves")
    assert appliance.pop3("anna").stat()[0] == 21
    appliance.stop()


def test_every_worker_resumes_the_tls_session_of_any_and_so_does_a_successor(appliance: Appliance) -> None:
    process = appliance.start("--workers", "2")
    context = appliance.tls_context()
    sessions: list[ssl.SSLSession | None] = [None]
    resumed: list[bool | None] = []

    def come_back(stack: ExitStack) -> None:
        plain = socket.create_connection((appliance.host, POP3S_PORT))
        secure = stack.enter_context(
            context.wrap_socket(plain, server_hostname=appliance.host, session=sessions[-1])
        )
        assert secure.recv(100).startswith(b"+OK")
        sessions.append(secure.session)
        resumed.append(secure.session_reused)

    def meet(*workers: int) -> None:
        """Come back until each of them has answered."""
        with ExitStack() as stack:
            for _ in range(200):
                come_back(stack)
                if all(map(serving, workers)):
                    return
        pytest.fail("a worker serves nobody")

    victim, other = process.children()
    meet(victim, other)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(set(process.children()) - {victim}) == 2, what="a new worker starts")
    (successor,) = set(process.children()) - {victim, other}
    meet(successor)
    assert resumed == [False, *[True] * (len(resumed) - 1)]


def test_workers_end_with_their_supervisor(appliance: Appliance) -> None:
    process = appliance.start("--workers", "2")
    workers = process.children()
    assert appliance.send(b"Subject: before\r\n\r\n", "anna")[0] == 250

    process.kill()

    wait_until(lambda: not any(Path(f"/proc/{each}").exists() for each in workers), what="the workers end")
    appliance.processes.clear()
    appliance.start("--workers", "2")
    assert appliance.pop3("anna").stat()[0] == 1


async def loaded(appliance: Appliance, *starts: tuple[str, ...]) -> Record:
    """Start processes, deliver to three accounts and collect from one of them; look at what came of it."""
    appliance.add_accounts("carl")
    for arguments in starts:
        await asyncio.to_thread(appliance.start, *arguments)
    record = Record()
    clients = [
        asyncio.create_task(
            deliver(appliance, record, random.Random(number), f"{number}", ("anna", "ben", "carl"))
        )
        for number in range(10)
    ]
    clients.append(asyncio.create_task(collect(appliance, record, "carl")))
    while len(record.acknowledged) < 200 or record.sessions < 8:
        await asyncio.wait_for(record.progress.wait(), timeout=30)
        record.progress.clear()
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    assert record.refused == {}
    await asyncio.to_thread(check_maildrops, appliance, record, ("anna", "ben"), "carl")
    return record


async def test_roles_in_two_processes_on_one_file(appliance: Appliance) -> None:
    record = await loaded(appliance, ("smtp",), ("pop3",))

    assert len(record.removed) > 20


async def test_two_workers_under_load(any_appliance: Appliance) -> None:
    record = await loaded(any_appliance, ("--workers", "2"))

    assert len(record.removed) > 20


def test_two_hosts_share_one_lock(appliance_on_postgresql: Appliance, tmp_path: Path) -> None:
    first = appliance_on_postgresql
    (folder := tmp_path / "second").mkdir()
    with Appliance(folder, database_url=first.url) as second:
        first.start()
        second.start()
        assert second.send(b"Subject: x\r\n\r\n", "anna")[0] == 250

        session = first.pop3("anna")
        assert session.stat()[0] == 1
        for host in (first, second):
            with pytest.raises(poplib.error_proto, match=r"-ERR \[IN-USE\]"):
                host.pop3("anna")
        second.pop3("ben").quit()
        session.dele(1)
        session.quit()
        assert freed(second).stat()[0] == 0

        # A host that dies takes its locks with it.
        assert second.send(b"Subject: y\r\n\r\n", "ben")[0] == 250
        first.pop3("ben")
        first.kill()
        assert freed(second, "ben").stat()[0] == 1


def freed(appliance: Appliance, account: str = "anna") -> poplib.POP3:
    """A session on a maildrop that another host has just let go, or is about to."""
    sessions: list[poplib.POP3] = []

    def is_free() -> bool:
        connection = appliance.pop3_plain()
        connection.user(account)
        try:
            connection.pass_(PASSWORD)
        except poplib.error_proto as error:
            connection.close()
            if b"[IN-USE]" not in error.args[0]:
                raise
            return False
        sessions.append(connection)
        return True

    wait_until(is_free, what="the lock is free", seconds=5)
    return sessions[0]
