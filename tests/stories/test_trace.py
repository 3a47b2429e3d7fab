"""What happened to a mail can be asked afterwards, by whoever has an address or an id of it."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from typing import Any

from sqlalchemy import update

from mailstack.store import housekeeping
from mailstack.store.clock import now
from mailstack.store.housekeeping import Rules
from mailstack.store.limits import Limits
from mailstack.store.store import Store
from mailstack.store.tables import entry
from tests.support.appliance import DOMAIN, Appliance, wait_until

ANNA, BEN = f"anna@{DOMAIN}", f"ben@{DOMAIN}"
MAIL = b"Message-ID: <one@client.example.net>\r\nSubject: one\r\n\r\nhello\r\n"


def mailstack(appliance: Appliance, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mailstack", "--config", str(appliance.config), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def told(appliance: Appliance, *arguments: str) -> Any:
    return json.loads(appliance.obey("trace", *arguments, "--json"))


def kinds(appliance: Appliance, *arguments: str) -> list[str]:
    return [each["event"] for each in told(appliance, *arguments)["events"]]


def lived(appliance: Appliance) -> str:
    """Two messages, one of them downloaded and deleted by one of its two recipients, and refusals; its id."""
    appliance.start()
    code, reply = appliance.send(MAIL, "anna", "ben")
    assert code == 250
    mail_id = reply.decode().split()[1]
    assert appliance.send(b"Subject: another\r\n\r\n", "anna")[0] == 250
    with appliance.smtp() as connection:
        connection.mail("sender@example.net")
        assert connection.rcpt(f"nobody@{DOMAIN}")[0] == 550
        assert connection.docmd(f"MAIL FROM:<huge@example.net> SIZE={1 << 40}")[0] == 503
    with appliance.smtp() as connection:
        assert connection.docmd(f"MAIL FROM:<huge@example.net> SIZE={1 << 40}")[0] == 552
    reader = appliance.pop3("anna", tls=True)
    reader.retr(1)
    reader.dele(1)
    reader.quit()
    wait_until(lambda: "session" in kinds(appliance, mail_id), what="the session is remembered")

    return mail_id


def test_a_mail_is_followed_from_the_connection_to_its_end(any_appliance: Appliance) -> None:
    appliance = any_appliance
    mail_id = lived(appliance)
    found = told(appliance, mail_id)
    accepted, session = found["events"]
    assert accepted["id"] == mail_id
    assert accepted["reverse_path"] == "sender@example.net"
    assert accepted["forward_paths"] == [ANNA, BEN]
    assert accepted["protocol"] == "ESMTP"
    assert accepted["connected_at"] <= accepted["at"]
    assert [(each["account"], each["uid"]) for each in accepted["entries"]] == [(ANNA, 1), (BEN, 1)]
    assert (session["account"], session["retrieved"], session["deleted"]) == (ANNA, "1", "1")
    assert session["tls"] == "TLSv1.3"
    assert [(each["account"], each["state"]) for each in found["now"]] == [(ANNA, "gone"), (BEN, "there")]

    unique_id = found["now"][1]["unique_id"]
    assert kinds(appliance, unique_id) == ["accepted"]
    assert kinds(appliance, "<ONE@client.example.net>") == ["accepted", "session"]
    assert kinds(appliance, session["id"]) == ["accepted", "session"]
    assert kinds(appliance, BEN.upper()) == ["accepted"]
    assert kinds(appliance, ANNA) == ["accepted", "accepted", "session"]
    assert kinds(appliance, "sender@example.net") == ["accepted", "accepted", "refused", "session"]
    assert kinds(appliance, f"nobody@{DOMAIN}") == ["refused"]
    assert kinds(appliance, "huge@example.net") == ["refused"]
    assert kinds(appliance, appliance.host) == []
    assert kinds(appliance, "--since", "1h") == ["accepted", "accepted", "refused", "refused", "session"]
    assert kinds(appliance, ANNA, "--since", "2099-01-01") == []


def test_a_sender_is_found_as_it_was_said_and_as_it_is_written_down(appliance: Appliance) -> None:
    appliance.start()
    with appliance.smtp() as connection:
        connection.ehlo()
        for line in ("MAIL FROM:<taro..yamada.@example.net>", f"RCPT TO:<nobody@{DOMAIN}>"):
            connection.docmd(line)
    wait_until(lambda: "refused" in kinds(appliance, "taro..yamada.@example.net"), what="it is remembered")
    assert kinds(appliance, '<"taro..yamada."@example.net>') == ["refused"]


def test_people_read_sentences_in_the_order_of_time(appliance: Appliance) -> None:
    mail_id = lived(appliance)
    said = appliance.obey("trace", mail_id).decode()
    assert f"{mail_id}: <sender@example.net> to {ANNA}, {BEN}, " in said
    assert f"{ANNA} downloaded 1 message" in said
    assert f"deleted 1 message: {mail_id}" in said
    assert f"{mail_id} is no longer in the maildrop of {ANNA}" in said
    assert f"{mail_id} is in the maildrop of {BEN} as " in said
    refused = appliance.obey("trace", f"nobody@{DOMAIN}").decode()
    assert f"<sender@example.net> to nobody@{DOMAIN}: 550 5.1.1" in refused
    times = re.findall(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)  ", said, re.MULTILINE)
    assert times == sorted(times)
    assert len(times) == 2


def test_a_download_that_broke_is_no_download(any_appliance: Appliance) -> None:
    appliance = any_appliance
    appliance.start()
    big = b"Subject: big\r\n\r\n" + (b"x" * 70 + b"\r\n") * 300_000
    mail_id = appliance.send(big, "anna")[1].decode().split()[1]
    reader = appliance.pop3("anna")
    reader._putcmd("RETR 1")  # type: ignore[attr-defined]
    assert reader.sock.recv(10)
    reader.sock.close()
    reader.file.close()
    small = appliance.pop3("anna")
    small.retr(1)
    small.quit()
    wait_until(lambda: len(kinds(appliance, ANNA)) == 2, what="the whole download is remembered")
    assert kinds(appliance, mail_id) == ["accepted", "session"]


def test_what_housekeeping_removes_and_people_bring_back_is_told(any_appliance: Appliance) -> None:
    appliance = any_appliance
    appliance.start()
    mail_id = appliance.send(MAIL, "anna")[1].decode().split()[1]
    appliance.stop()
    with appliance.database() as database:
        with database.writing() as connection:
            connection.execute(update(entry).values(delivered_at=now() - 100 * 86_400_000_000))
        asyncio.run(_keep_house(appliance, undo_seconds=86_400))
    assert kinds(appliance, mail_id) == ["accepted", "removed"]
    assert told(appliance, mail_id)["now"][0]["state"] == "removed"
    assert "can be brought back" in appliance.obey("trace", mail_id).decode()
    appliance.obey("maildrop", "restore", ANNA, "--all")
    assert kinds(appliance, mail_id) == ["accepted", "removed", "restored"]
    with appliance.database() as database, database.writing() as connection:
        connection.execute(update(entry).values(delivered_at=now() - 100 * 86_400_000_000))
    asyncio.run(_keep_house(appliance, undo_seconds=86_400))
    asyncio.run(_keep_house(appliance, undo_seconds=0))
    assert kinds(appliance, mail_id)[-1] == "forgotten"
    appliance.obey("account", "remove", ANNA, "--yes")
    assert kinds(appliance, mail_id)[-1] == "removed"
    assert "was removed with all its mail" in appliance.obey("trace", mail_id).decode()


async def _keep_house(appliance: Appliance, *, undo_seconds: int) -> None:
    rules = Rules(default=Limits(keep_seconds=30 * 86_400), undo_seconds=undo_seconds, undo_deleted_seconds=0)
    with appliance.database() as database:
        store = Store(database, state_dir=appliance.state_dir, reserve_octets=0)
        try:
            await housekeeping.run(store, rules)
        finally:
            await store.close()


def test_what_was_asked_has_to_be_something(appliance: Appliance) -> None:
    assert mailstack(appliance, "trace").returncode == 64
    assert mailstack(appliance, "trace", "x y", "--since", "1h").returncode == 67
    done = mailstack(appliance, "trace", ANNA, "--since", "yesterday")
    assert (done.returncode, "is no time" in done.stderr) == (64, True)
    nothing = mailstack(appliance, "trace", "somebody@example.net")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "nothing is known; events are kept for 30d" in nothing.stderr
