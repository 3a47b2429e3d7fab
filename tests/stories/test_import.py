"""An import that is killed, while mail comes in and is read, is ended by the same command again."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from mailstack.mail.address import parse_mailbox
from mailstack.store import accounts, listing
from tests.support.appliance import DOMAIN, Appliance, retrieved

pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

MESSAGES = 1500
LARGE = b"x" * 400_000
ROUNDS = 5


def content(number: int) -> bytes:
    return b"Subject: %d\r\n\r\n" % number + (LARGE + b"\r\n" if number % 500 == 7 else b"body\r\n")


@pytest.fixture
def maildir(tmp_path: Path) -> Path:
    """A Maildir of Dovecot's, each of whose messages can be known again."""
    folder = tmp_path / "Maildir"
    (folder / "cur").mkdir(parents=True)
    (folder / "new").mkdir()
    listed = [f"3 V255 N{MESSAGES + 1}\n"]
    for number in range(1, MESSAGES + 1):
        name = f"{1_700_000_000 + number}.{number}"
        (folder / "cur" / f"{name}:2,S").write_bytes(content(number).replace(b"\r\n", b"\n"))
        listed.append(f"{number} :{name}\n")
    (folder / "dovecot-uidlist").write_text("".join(listed))
    return folder


def test_killed_at_any_time_nothing_is_lost_or_doubled(any_appliance: Appliance, maildir: Path) -> None:
    rng = random.Random(os.environ.get("MAILSTACK_SEED", "moved"))
    any_appliance.start()
    command = ("maildrop", "import", f"anna@{DOMAIN}", str(maildir))
    sent = deleted = 0
    for _ in range(ROUNDS):
        before = any_appliance.snapshot("anna").messages
        importing = any_appliance.begin(*command)
        # Each round gets some way, for each begins where the one before was killed.
        goal = before + rng.randrange(1, MESSAGES // ROUNDS)
        until = time.monotonic() + 60
        while any_appliance.snapshot("anna").messages < min(goal, MESSAGES) and time.monotonic() < until:
            time.sleep(rng.random() / 200)
        importing.kill()
        any_appliance.processes.remove(importing)
        assert any_appliance.send(b"Subject: native\r\n\r\n%d\r\n" % sent, "anna")[0] == 250
        sent += 1
        session = any_appliance.pop3("anna")
        session.dele(1)
        session.quit()
        deleted += 1
        assert any_appliance.findings() == []
    any_appliance.command(*command, seconds=300)

    unique_ids = uidl(any_appliance)
    imported = [each for each in unique_ids if len(each) == 16]
    assert imported == [f"{number:08x}000000ff" for number in range(1, MESSAGES + 1)][deleted:]
    assert len(unique_ids) == len(imported) + sent
    assert any_appliance.findings() == []
    session = any_appliance.pop3("anna")
    places = {each: place for place, each in enumerate(unique_ids, 1)}
    for number in (deleted + 1, 507, 1000, MESSAGES):
        assert retrieved(session, places[f"{number:08x}000000ff"]) == content(number)
    session.quit()
    assert any_appliance.command(*command).startswith(b"0 messages")


def test_a_session_sees_nothing_of_an_import_beside_it(appliance: Appliance, maildir: Path) -> None:
    appliance.start()
    assert appliance.send(b"Subject: native\r\n\r\nbody\r\n", "anna")[0] == 250
    session = appliance.pop3("anna")
    before = session.uidl()[1]
    appliance.command("maildrop", "import", f"anna@{DOMAIN}", str(maildir), seconds=300)
    assert (session.uidl()[1], session.stat()[0]) == (before, 1)
    session.dele(1)
    session.quit()
    assert appliance.snapshot("anna").messages == MESSAGES
    assert appliance.findings() == []


def uidl(appliance: Appliance) -> list[str]:
    with appliance.database() as database, database.reading() as connection:
        found = accounts.find_account(connection, parse_mailbox(f"anna@{DOMAIN}"))
        return list(listing.unique_ids(connection, found.id, 1 << 40))
