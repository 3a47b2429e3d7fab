"""`housekeeping run`, `keep`, `quota`, `maildrop removed` and `restore`, as an administrator types them."""

from __future__ import annotations

import os
import re

import pytest
from sqlalchemy import update

from mailstack.store import events
from mailstack.store.clock import SECOND, now
from mailstack.store.engine import Database
from mailstack.store.events import Kind
from mailstack.store.tables import entry
from mailstack.values import DAY_SECONDS
from tests.cli.conftest import CommandLine, Outcome
from tests.support import maildrops

JO = "jo@example.org"


@pytest.fixture
def filled(mailstack: CommandLine, store: Database) -> CommandLine:
    """A server whose account jo has three messages, of which one is from 1970."""
    mailstack.good("account", "add", JO)
    for number in range(3):
        maildrops.deposit(store, b"Subject: %d\r\n\r\n" % number, JO)
    with store.writing() as connection:
        connection.execute(update(entry).where(entry.c.uid == 1).values(delivered_at=0))
    return mailstack


def test_old_mail_is_told_goes_and_comes_back(filled: CommandLine) -> None:
    listed = filled.good("maildrop", "list", JO, "--json").json
    assert filled.good("housekeeping", "run", "--dry-run").out == "there is nothing to remove\n"
    kept = filled.good("account", "keep", JO, "--for", "30d")
    assert "its mail is kept: 30d after arrival" in kept.out
    assert kept.err == "the next housekeeping removes 1 message (46 B)\n"
    for asked in (("account", "keep", JO), ("domain", "keep", "example.org")):
        told = filled.good(*asked, "--json").json["next_housekeeping"]
        assert told == {"messages": 1, "octets": 46}
    assert filled.good("housekeeping", "run", "--dry-run").out == (
        f"{JO}: 1 message (46 B) would be removed\nnothing was changed\n"
    )
    assert f"{JO}: 1 message (46 B) removed" in filled.good("housekeeping", "run").out
    assert filled.good("maildrop", "list", JO, "--json").json == listed[1:]
    (removed,) = filled.good("maildrop", "removed", JO, "--json").json
    assert removed["unique_id"] == listed[0]["unique_id"]
    assert removed["removed_by"] == "housekeeping"
    assert "to bring back  1 removed message" in filled.good("maildrop", "show", JO).out
    told = filled.good("maildrop", "restore", JO, removed["unique_id"]).out
    assert told == f"1 message of {JO} brought back\n"
    after = filled.good("maildrop", "list", JO, "--json").json
    assert [each["unique_id"] for each in after] == [each["unique_id"] for each in listed]
    assert filled.good("maildrop", "removed", JO).err == f"{JO} has no messages to bring back\n"


def test_what_comes_back_where_the_number_is_limited_is_told_to_go_again(filled: CommandLine) -> None:
    filled.good("account", "keep", JO, "--messages", "1")
    filled.good("housekeeping", "run")
    said = filled.good("maildrop", "restore", JO, "--all")
    assert said.out.endswith(" brought back\n")
    assert said.err.startswith("note: housekeeping keeps the 1 newest message of a maildrop, which are fewer")


def test_events_that_are_too_old_to_be_traced_are_counted(filled: CommandLine, store: Database) -> None:
    def run(*options: str) -> Outcome:
        """Keep house where two events are 31 days old."""
        old = now() - 31 * DAY_SECONDS * SECOND
        rows = [events.Row.of(old + n, f"old{n}", Kind.SESSION, [], {"account_id": 1}) for n in range(2)]
        with store.writing() as connection:
            events.write(connection, [rows])
        return filled.good("housekeeping", "run", *options)

    assert ", 2 events too old to be traced, " in run().out
    assert run("--json").json["events"] == 2


def test_restore_wants_names_or_all(filled: CommandLine) -> None:
    assert filled("maildrop", "restore", JO).code == os.EX_USAGE
    assert filled("maildrop", "restore", JO, "1.1", "--all").code == os.EX_USAGE
    assert filled.good("maildrop", "restore", JO, "--all").out.startswith("0 messages")
    assert "no removed message 1.1" in filled("maildrop", "restore", JO, "1.1").err


def test_a_domain_speaks_for_accounts_that_say_nothing(filled: CommandLine) -> None:
    filled.good("domain", "quota", "example.org", "1KiB", "--messages", 4)
    filled.good("domain", "keep", "example.org", "--read", "90d", "--messages", 7)
    shown = filled.good("account", "show", JO).out
    assert re.search(r"quota +1.0 KiB, 4 messages", shown)
    assert re.search(r"kept +90d after the first download, the newest 7 messages", shown)
    filled.good("account", "quota", JO, "none", "--messages", "none")
    filled.good("account", "keep", JO, "--read", "forever", "--messages", "none")
    assert re.search(r"quota +none\n", filled.good("account", "show", JO).out)
    assert re.search(r"kept +forever\n", filled.good("account", "show", JO).out)
    filled.good("account", "quota", JO, "default")
    assert filled.good("account", "show", JO, "--json").json["quota_octets"] == 1024
    said = filled.good("domain", "quota", "example.org", "--json").json
    assert (said["quota_octets"], said["quota_messages"], said["keep_seconds"]) == (1024, 4, None)
    filled.good("domain", "quota", "example.org", "none", "--messages", "default")
    said = filled.good("domain", "quota", "example.org", "--json").json
    assert (said["quota_octets"], said["quota_messages"]) == ("none", None)
    said = filled.good("domain", "quota", "example.org").out
    assert re.search(r"^quota +none$", said, re.MULTILINE)
    assert re.search(r"^messages +not said, so none$", said, re.MULTILINE)
    filled.good("domain", "quota", "example.org", "1KiB")
    said = filled.good("domain", "keep", "example.org").out
    assert re.search(r"^quota +1\.0 KiB$", said, re.MULTILINE)
    assert re.search(r"^kept after arrival +as the settings say$", said, re.MULTILINE)
    assert re.search(r"^kept after download +90d$", said, re.MULTILINE)
    assert re.search(r"^newest messages kept +7$", said, re.MULTILINE)


def test_a_nearly_full_mailbox_is_told_once(filled: CommandLine) -> None:
    filled.good("account", "quota", JO, "--messages", 3)
    assert filled.good("housekeeping", "run", "--json").json["warned"] == [JO]
    assert filled.good("housekeeping", "run", "--json").json["warned"] == []
    assert len(filled.good("maildrop", "list", JO, "--json").json) == 4


def test_the_whole_store_is_looked_through_once_a_day_or_when_asked(filled: CommandLine) -> None:
    assert filled.good("housekeeping", "run", "--json").json["swept"] is True
    assert filled.good("housekeeping", "run", "--json").json["swept"] is False
    assert "belonged to nothing" not in filled.good("housekeeping", "run").out
    assert ", 0 that belonged to nothing, " in filled.good("housekeeping", "run", "--sweep").out
    assert filled("housekeeping", "run", "--sweep", "--dry-run").code == os.EX_USAGE


@pytest.mark.parametrize(
    "words", [("account", "keep", JO, "--for", "soon"), ("domain", "quota", "example.org", "much")]
)
def test_what_is_no_time_and_no_size_is_refused(filled: CommandLine, words: tuple[str, ...]) -> None:
    refused = filled(*words)
    assert refused.code == os.EX_USAGE
    assert words[-1] in refused.err


def test_no_such_domain(mailstack: CommandLine) -> None:
    assert "none of our domains" in mailstack("domain", "quota", "example.net", "1GiB").err
