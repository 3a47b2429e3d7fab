"""Quotas and retention as senders, owners and administrators meet them, on a server that runs."""

from __future__ import annotations

import json
import re
from typing import Any

from sqlalchemy import select, update

from mailstack.store.clock import now
from mailstack.store.engine import Database
from mailstack.store.tables import account, entry
from tests.support.appliance import DOMAIN, Appliance, retrieved, wait_until

ANNA = f"anna@{DOMAIN}"
DAY = 86_400_000_000
KIB = 1024


def message(number: int, octets: int) -> bytes:
    """A message of about so many octets."""
    return b"Subject: %d\r\n\r\n" % number + (b"x" * 62 + b"\r\n") * (octets // 64)


def housekeeping(appliance: Appliance, *options: str) -> Any:
    """What `housekeeping run` says to scripts, beside the server."""
    return json.loads(appliance.obey("housekeeping", "run", "--json", *options))


def rcpt(appliance: Appliance, *names: str, size: int | None = None) -> list[int]:
    """What a sender hears of each recipient, before it has sent anything."""
    with appliance.smtp() as connection:
        connection.mail("sender@example.net", [] if size is None else [f"SIZE={size}"])
        return [connection.rcpt(f"{name}@{DOMAIN}")[0] for name in names]


def subjects(appliance: Appliance, name: str) -> list[str]:
    """Of the messages of a maildrop, as a mail program reads them."""
    session = appliance.pop3(name)
    found = []
    for number in range(1, session.stat()[0] + 1):
        lines = session.top(number, 0)[1]
        found.append(next(line[9:].decode() for line in lines if line.startswith(b"Subject: ")))
    session.quit()
    return found


def test_a_quota_from_the_first_warning_to_the_last_refusal(any_appliance: Appliance) -> None:
    appliance = any_appliance
    appliance.start()
    appliance.obey("account", "quota", "anna", "100KiB")
    assert housekeeping(appliance)["warned"] == []
    for number in range(4):
        assert appliance.send(message(number, 20 * KIB), "anna", "ben")[0] == 250

    # At 80 and at 95 per cent the owner is told, once each.
    assert housekeeping(appliance)["warned"] == [ANNA]
    assert housekeeping(appliance)["warned"] == []
    assert appliance.send(message(4, 14 * KIB), "anna")[0] == 250
    assert housekeeping(appliance)["warned"] == [ANNA]
    assert housekeeping(appliance)["warned"] == []
    told = [each for each in subjects(appliance, "anna") if "full" in each]
    assert len(told) == 2
    assert re.fullmatch(r"Your mailbox is 8\d % full", told[0])
    assert re.fullmatch(r"Your mailbox is 9[5-9] % full", told[1])
    shown = appliance.obey("account", "show", "anna").decode()
    assert re.search(r"quota +100 KiB, 9[5-9] % full", shown), shown

    # Who says how much is coming hears at RCPT that it does not fit; nobody else's mail is harmed.
    assert rcpt(appliance, "anna", "ben", size=20 * KIB) == [452, 250]
    assert rcpt(appliance, "anna", size=100) == [250]
    # Who does not say may still fit, and the last one may be too large; then there is no more.
    small = message(7, KIB // 2)
    while appliance.send(small, "anna")[0] == 250:
        assert appliance.snapshot("anna").octets < 101 * KIB
    assert 100 * KIB <= appliance.snapshot("anna").octets < 101 * KIB
    assert appliance.send(message(8, 20 * KIB), "ben")[0] == 250

    # Deleting makes room at once.
    session = appliance.pop3("anna")
    session.dele(1)
    session.quit()
    assert rcpt(appliance, "anna", size=10 * KIB) == [250]
    assert appliance.send(message(9, 10 * KIB), "anna")[0] == 250

    # A wrong counter refuses what would fit; the check finds it and counts anew.
    with appliance.database() as database, database.writing() as connection:
        mine = account.c.local_part == "anna"
        connection.execute(update(account).where(mine).values(octets=account.c.octets + 50 * KIB))
    assert rcpt(appliance, "anna") == [452]
    said = appliance.obey("database", "check", "--repair").decode()
    assert "mended: anna@example.test: the counter says" in said
    assert rcpt(appliance, "anna") == [250]
    assert appliance.findings() == []


def test_who_says_its_size_is_weighed_with_what_has_just_come(any_appliance: Appliance) -> None:
    appliance = any_appliance
    appliance.obey("account", "quota", "anna", "100KiB")
    appliance.start()
    assert appliance.send(message(1, 80 * KIB), "anna")[0] == 250
    assert rcpt(appliance, "anna", size=80 * KIB) == [452]
    assert rcpt(appliance, "anna", size=10 * KIB) == [250]


def test_a_quota_holds_whoever_comes_at_once_and_by_whatever_way(any_appliance: Appliance) -> None:
    appliance = any_appliance
    appliance.obey("account", "quota", "anna", "100KiB")
    appliance.obey("alias", "add", "team", "anna", "ben")
    appliance.start()
    connections = [appliance.smtp() for _ in range(10)]
    for each in connections:  # all beyond RCPT before the first has sent anything, and none says its size
        each.mail("sender@example.net")
        assert each.rcpt(ANNA)[0] == 250
        assert each.docmd("DATA")[0] == 354
    for number, each in enumerate(connections):
        each.send(message(number, 90 * KIB) + b".\r\n")
    assert sorted(each.getreply()[0] for each in connections) == [250] * 2 + [452] * 8
    assert appliance.snapshot("anna").messages == 2

    # 180 KiB are there: the team's mail comes until there are 200, and is then refused to all of it.
    assert appliance.send(message(10, 90 * KIB), "team")[0] == 250
    assert rcpt(appliance, "team", "ben", "anna", size=KIB) == [452, 250, 452]
    assert appliance.snapshot("anna").messages == 3
    assert appliance.snapshot("ben").messages == 1
    appliance.obey("account", "disable", "anna")
    wait_until(lambda: rcpt(appliance, "team") == [250], what="the others get what is for the team")
    assert appliance.findings() == []


def test_a_full_maildrop_is_told_for_good_where_that_is_wished(any_appliance: Appliance) -> None:
    appliance = any_appliance
    text = appliance.config.read_text().replace("[smtp]\n", '[smtp]\nover_quota = "permanent"\n')
    appliance.config.write_text(text)
    appliance.obey("domain", "quota", DOMAIN, "1GiB", "--messages", "2")
    appliance.start()
    for _ in range(2):
        assert appliance.send(b"Subject: x\r\n\r\n", "anna")[0] == 250
    assert rcpt(appliance, "anna", "ben") == [552, 250]
    code, said = appliance.send(b"Subject: x\r\n\r\n", "anna")
    assert (code, said[:5]) == (552, b"5.2.2")
    appliance.obey("account", "quota", "anna", "none", "--messages", "none")
    assert appliance.send(b"Subject: x\r\n\r\n", "anna")[0] == 250


def aged(database: Database, column: str, days: dict[int, int]) -> None:
    """Let anna's mail be so many days older, by uid."""
    with database.writing() as connection:
        for uid, age in days.items():
            mine = (entry.c.account_id == 1) & (entry.c.uid == uid)
            connection.execute(update(entry).where(mine).values({column: now() - age * DAY}))


def read(appliance: Appliance) -> list[int]:
    """The uids of what was downloaded."""
    wanted = select(entry.c.uid).where(entry.c.first_read_at.is_not(None))
    with appliance.database() as database, database.reading() as connection:
        return list(connection.execute(wanted).scalars())


def test_old_mail_goes_by_rule_and_comes_back(any_appliance: Appliance) -> None:
    appliance = any_appliance
    with appliance.config.open("a") as config:
        config.write('\n[retention]\nkeep = "365d"\nundo = "7d"\n')
    appliance.start()
    for number in range(6):
        assert appliance.send(message(number, KIB), "anna")[0] == 250
    session = appliance.pop3("anna")
    unique_ids = session.uidl()[1]
    assert "EXPIRE" in session.capa()
    assert retrieved(session, 3)
    session.quit()
    before = appliance.snapshot("anna")

    appliance.stop()  # what is noted in passing is written now
    appliance.start()
    assert read(appliance) == [3]
    with appliance.database() as database:
        aged(database, "delivered_at", {1: 400, 2: 100, 3: 50, 4: 40})
        aged(database, "first_read_at", {3: 20})

    # The default, the domain's word, the account's: each is seen before it is done.
    def doomed() -> int:
        found = housekeeping(appliance, "--dry-run")["maildrops"]
        assert appliance.snapshot("anna") == before
        return sum(each["messages"] for each in found)

    assert doomed() == 1
    appliance.obey("domain", "keep", DOMAIN, "--for", "90d")
    assert doomed() == 2
    appliance.obey("account", "keep", "anna", "--read", "10d")
    assert doomed() == 3
    appliance.obey("account", "keep", "anna", "--messages", "1")
    assert doomed() == 5
    appliance.obey("account", "keep", "anna", "--messages", "none")
    assert doomed() == 3

    # A maildrop that somebody has open is passed over.
    session = appliance.pop3("anna")
    assert housekeeping(appliance)["in_use"] == [ANNA]
    session.quit()
    report = housekeeping(appliance)
    assert [(each["address"], each["messages"]) for each in report["maildrops"]] == [(ANNA, 3)]
    assert subjects(appliance, "anna") == ["3", "4", "5"]
    # What could come back is charged to nobody.
    assert appliance.snapshot("anna").octets < before.octets * 2 // 3
    appliance.obey("account", "quota", "anna", "none", "--messages", "4")
    assert rcpt(appliance, "anna") == [250]
    appliance.obey("account", "quota", "anna", "none", "--messages", "none")

    removed = json.loads(appliance.obey("maildrop", "removed", "anna", "--json"))
    assert len(removed) == 3
    appliance.obey("maildrop", "restore", "anna", removed[1]["unique_id"])
    assert subjects(appliance, "anna") == ["1", "3", "4", "5"]
    appliance.obey("maildrop", "restore", "anna", "--all")
    session = appliance.pop3("anna")
    assert session.uidl()[1] == unique_ids
    session.quit()
    assert housekeeping(appliance)["maildrops"] == []
    assert subjects(appliance, "anna") == ["0", "1", "2", "3", "4", "5"]
    assert appliance.findings() == []


def test_the_server_keeps_house_by_itself(appliance: Appliance) -> None:
    text = appliance.config.read_text() + '\n[housekeeping]\nevery = "1m"\n'
    appliance.config.write_text(text)
    appliance.obey("account", "keep", "anna", "--for", "30d")
    appliance.start()
    for number in range(3):
        assert appliance.send(message(number, KIB), "anna")[0] == 250
    with appliance.database() as database:
        aged(database, "delivered_at", {1: 31, 2: 29})
    wait_until(lambda: appliance.snapshot("anna").messages == 2, what="what is too old goes", seconds=30)
    assert subjects(appliance, "anna") == ["1", "2"]
    appliance.stop()
