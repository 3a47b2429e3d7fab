"""What happened to a mail can be asked afterwards, by whoever has an address or an id of it."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.event import listens_for

from mailstack.errors import NotFound
from mailstack.store import housekeeping, story
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


DOVECOTS = "000000016b0388a7"
IN_OUR_FORM = "1690000000.3"  # but by somebody else, for what is another number here
BY_ITS_FILE = "1700086400.M101P42.mx1.example.org,S=641"


def test_imported_mail_is_found_by_the_ids_of_the_other_server(
    any_appliance: Appliance, tmp_path: Path
) -> None:
    appliance = any_appliance
    for name, ids in {"anna": [DOVECOTS, IN_OUR_FORM, "x.3"], "ben": [DOVECOTS, BY_ITS_FILE]}.items():
        folder = tmp_path / name
        for each in ("cur", "new", "tmp"):
            (folder / each).mkdir(parents=True)
        listed = ["3 V1795393672 N9\n"]
        for number, unique_id in enumerate(ids, 1):
            (folder / "cur" / f"{number}.x:2,").write_bytes(b"Subject: %d\n\n" % number)
            listed.append(f"{number} P{unique_id} :{number}.x\n")
        (folder / "dovecot-uidlist").write_text("".join(listed))
        appliance.obey("maildrop", "import", f"{name}@{DOMAIN}", str(folder))

    def found(unique_id: str) -> list[tuple[str, str]]:
        story = told(appliance, unique_id)
        assert {each["event"] for each in story["events"]} == {"imported"}
        return [(each["account"], each["state"]) for each in story["now"]]

    assert found(DOVECOTS) == [(ANNA, "there"), (BEN, "there")]
    assert found(IN_OUR_FORM) == [(ANNA, "there")]
    assert found("x.3") == [(ANNA, "there")]
    assert found(BY_ITS_FILE) == [(BEN, "there")]
    with appliance.config.open("a") as config:
        config.write('\n[retention]\nundo = "7d"\n')
    appliance.obey("maildrop", "remove", BEN, BY_ITS_FILE, "--yes")
    assert [each["state"] for each in told(appliance, BY_ITS_FILE)["now"]] == ["removed"]
    assert told(appliance, "1690000000.4") == {"events": [], "now": []}
    default = f'default_domain = "{DOMAIN}"\n'
    appliance.config.write_text(appliance.config.read_text().replace(default, ""))
    assert found(DOVECOTS) == [(ANNA, "there"), (BEN, "there")]
    assert mailstack(appliance, "trace", "1690000000.4").returncode == 67


def test_a_unique_id_is_looked_for_by_an_index(appliance: Appliance) -> None:
    asked: list[tuple[str, Any]] = []
    with appliance.database() as database, database.reading() as connection:

        @listens_for(connection, "before_cursor_execute")
        def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            asked.append((statement, parameters))

        with pytest.raises(NotFound):
            story.find(connection, "1690000000.3", 0)
        of_entries = [each for each in asked if "FROM entry" in each[0]]
        assert len(of_entries) == 2
        plans = [
            str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all())
            for statement, parameters in of_entries
        ]
    assert "SEARCH entry USING PRIMARY KEY (account_id=? AND uid=?)" in plans[0]
    assert "SEARCH entry USING COVERING INDEX ix_entry_foreign_id (account_id=? AND unique_id=?)" in plans[1]


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
