"""`mailstack database`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from sqlalchemy import insert, text, update

from mailstack import settings
from mailstack.store import schema
from mailstack.store.engine import Database
from mailstack.store.file_locks import FileLocks
from mailstack.store.locks import HOUSEKEEPING
from mailstack.store.parts import content_id
from mailstack.store.tables import account, content
from tests.cli.conftest import CommandLine
from tests.support import maildrops


def test_upgrade_makes_a_database_and_then_has_nothing_to_do(mailstack: CommandLine, store: Database) -> None:
    store.dispose()
    Path(str(store.path)).unlink()
    refused = mailstack("account", "list")
    assert refused.code == 78
    assert (
        refused.err == f"mailstack: there is no database {store.path}; mailstack database upgrade makes one\n"
    )
    assert not Path(str(store.path)).exists()
    assert mailstack.good("database", "upgrade").out == f"the schema is at {schema.HEAD} now\n"
    assert mailstack.good("database", "upgrade").out == f"the schema is at {schema.HEAD} already\n"
    assert mailstack.good("account", "list", "--json").json == []


def test_another_revision_is_refused_with_the_command_that_helps(
    mailstack: CommandLine, store: Database
) -> None:
    with store.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    for command in (("account", "list"), ("database", "check")):
        refused = mailstack(*command)
        assert refused.code == 78
        assert "run: mailstack database upgrade" in refused.err
    revision = mailstack("database", "revision", "--json")
    assert (revision.code, revision.json) == (78, {"revision": "0000", "needed": schema.HEAD})


def test_revision_tells_both(mailstack: CommandLine) -> None:
    said = mailstack.good("database", "revision").out
    assert said == f"revision  {schema.HEAD}\nneeded    {schema.HEAD}\n"


def test_check_finds_and_repair_mends(mailstack: CommandLine, store: Database) -> None:
    mailstack.good("account", "add", "jo")
    maildrops.deposit(store, b"Subject: x\r\n\r\n", "jo@example.org")
    assert mailstack.good("database", "check").out == "the store adds up\n"
    with store.writing() as connection:
        connection.execute(update(account).values(messages=5))
    found = mailstack("database", "check")
    said = "jo@example.org: the counter says 5 messages, the maildrop has 1"
    assert (found.code, found.out) == (65, f"{said}\n1 finding left; --repair mends what can be mended\n")
    mended = mailstack.good("database", "check", "--repair")
    assert mended.out == f"mended: {said}\n1 finding, all mended\n"
    assert mailstack.good("database", "check", "--json").json == {"findings": [], "damaged": []}


async def test_repair_leaves_alone_what_is_being_restored(mailstack: CommandLine, store: Database) -> None:
    with store.writing() as connection:  # content comes first, its messages when all of it is there
        connection.execute(insert(content).values(id=content_id(9), octets=b"Subject: x\r\n\r\n"))
    locks = FileLocks(settings.load(mailstack.file, {}).state_dir / "maildrops.lock")
    lock = await locks.hold(HOUSEKEEPING, holder="mailstack backup restore")
    refused = await asyncio.to_thread(mailstack, "database", "check", "--repair")
    assert refused.code == os.EX_TEMPFAIL
    assert "housekeeping is at work, held since" in refused.err
    assert "mailstack backup restore; try again later" in refused.err
    told = (await asyncio.to_thread(mailstack, "database", "check")).out
    assert told.startswith("content is left of message 9, which is not there\n")
    await lock.released()
    mended = await asyncio.to_thread(mailstack, "database", "check", "--repair")
    assert (mended.code, mended.out.startswith("mended: content is left of message 9")) == (0, True)
    locks.close()


def test_what_cannot_be_mended_is_said(mailstack: CommandLine, store: Database) -> None:
    mailstack.good("account", "add", "jo")
    maildrops.deposit(store, b"Subject: x\r\n\r\n", "jo@example.org")
    with store.writing() as connection:
        connection.execute(text("DELETE FROM content"))
    found = mailstack("database", "check", "--repair", "--json")
    assert found.code == 65
    (finding,) = found.json["findings"]
    assert (finding["mendable"], finding["mended"]) == (False, False)
    assert "message 1 is damaged" in finding["text"]
    (entry,) = mailstack.good("maildrop", "list", "jo@example.org", "--json").json
    assert found.json["damaged"] == [{"address": "jo@example.org", "unique_id": entry["unique_id"]}]
    options = f"--account jo@example.org --message {entry['unique_id']}"
    assert mailstack("database", "check").err == f"from a backup: mailstack backup restore FOLDER {options}\n"


def test_a_database_that_is_none_is_said_plainly(mailstack: CommandLine, store: Database) -> None:
    store.dispose()
    Path(str(store.path)).write_bytes(b"this is no database" * 1000)
    refused = mailstack("account", "list")
    assert refused.code == 69
    assert "not a database" in refused.err
    assert refused.err.count("\n") == 1
