"""SIGTERM: what is under way ends well, what was acknowledged is there, and nobody is cut off."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest

from tests.stories.load import Record, check_maildrops, collect, deliver, message
from tests.support import reference
from tests.support.appliance import DOMAIN, POP3_PORT, SMTP_PORT, Appliance, retrieved, wait_until

KEPT = ("anna", "ben")


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_stop_under_load(any_appliance: Appliance, workers: str) -> None:
    appliance = any_appliance
    record = Record()
    appliance.add_accounts("carl")
    await asyncio.to_thread(appliance.start, "--workers", workers)
    clients = [
        asyncio.create_task(deliver(appliance, record, random.Random(number), f"{number}", (*KEPT, "carl")))
        for number in range(20)
    ]
    clients.append(asyncio.create_task(collect(appliance, record, "carl")))
    while len(record.acknowledged) < 100:
        await asyncio.wait_for(record.progress.wait(), timeout=20)
        record.progress.clear()

    await asyncio.to_thread(appliance.stop)

    await asyncio.wait_for(asyncio.gather(*clients), timeout=20)
    # Whoever had sent all of a message got an answer, and nobody one that gives up a message.
    assert {reply[:4] for reply in record.refused} <= {b"421 ", b""}
    await asyncio.to_thread(appliance.start)
    await asyncio.to_thread(check_maildrops, appliance, record, KEPT, "carl")


def test_a_message_and_a_reply_that_are_under_way(any_appliance: Appliance) -> None:
    appliance = any_appliance
    big = message("big", 8_000_000)
    process = appliance.start()
    assert appliance.send(big, "ben")[0] == 250
    data = reference.stuffed(message("late", 100_000))
    reader = appliance.pop3("ben")
    with appliance.smtp() as sender:
        sender.mail("sender@example.net")
        sender.rcpt(f"anna@{DOMAIN}")
        sender.docmd("DATA")
        sender.sock.sendall(data[:50_000])
        reader._putcmd("RETR 1")  # type: ignore[attr-defined]  # and nobody reads it yet

        process.terminate()
        wait_until(lambda: not accepts(appliance, SMTP_PORT), what="no more connections are taken")
        assert not accepts(appliance, POP3_PORT)
        assert process.running

        sender.sock.sendall(data[50_000:])
        assert sender.getreply()[0] == 250
        _, lines, _ = reader._getlongresp()  # type: ignore[attr-defined]
        assert b"\r\n".join(lines).endswith(big.removesuffix(b"\r\n"))
        assert process.wait() == 0
        reader.close()
        sender.close()

    appliance.kill()
    appliance.start()
    assert retrieved(appliance.pop3("anna"), 1).endswith(message("late", 100_000))


def test_a_transaction_that_has_begun_goes_on(appliance: Appliance) -> None:
    process = appliance.start()
    with appliance.smtp() as sender:
        sender.mail("sender@example.net")
        process.terminate()
        wait_until(lambda: not accepts(appliance, SMTP_PORT), what="no more connections are taken")
        assert sender.rcpt(f"anna@{DOMAIN}")[0] == 250
        assert sender.data(message("begun", 1_000))[0] == 250
        assert sender.getreply()[0] == 421  # it is over, and so is the connection
    assert process.wait(10) == 0
    assert appliance.snapshot("anna").messages == 1


def test_a_transaction_that_nobody_goes_on_with_is_ended(appliance: Appliance) -> None:
    process = appliance.start()
    with appliance.smtp() as sender:
        sender.mail("sender@example.net")
        process.terminate()
        assert sender.getreply()[0] == 421
    assert process.wait(15) == 0


def test_idle_sessions_do_not_keep_it(appliance: Appliance) -> None:
    process = appliance.start()
    sessions = [appliance.pop3("anna"), appliance.pop3("ben", tls=True), appliance.pop3_plain()]
    senders = [appliance.smtp(), appliance.smtp()]
    senders[1].starttls(context=appliance.tls_context())
    senders[1].ehlo()

    process.terminate()

    assert process.wait(10) == 0
    assert [sender.getreply()[0] for sender in senders] == [421, 421]
    for client in (*sessions, *senders):
        client.close()


def accepts(appliance: Appliance, port: int) -> bool:
    try:
        socket.create_connection((appliance.host, port), timeout=5).close()
    except OSError:
        return False
    return True
