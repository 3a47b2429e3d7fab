"""The same commands where the database is a PostgreSQL server."""

from __future__ import annotations

import asyncio

import pytest

from mailstack import settings
from mailstack.mail.address import Mailbox
from mailstack.store import accounts
from mailstack.store.engine import Database
from mailstack.store.store import Store
from tests.cli.conftest import CommandLine
from tests.support import maildrops, postgresql


@pytest.fixture
def on_postgresql(
    mailstack: CommandLine, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> CommandLine:
    """The command line on a server of PostgreSQL that has the domain example.org."""
    monkeypatch.setenv("MAILSTACK_DATABASE_URL", postgresql_url)
    mailstack.good("domain", "add", "example.org")
    return mailstack


def test_an_account_from_its_making_to_its_end(on_postgresql: CommandLine, postgresql_url: str) -> None:
    run = on_postgresql.good
    run("account", "add", "jo")
    run("alias", "add", "info", "jo")
    database = Database(postgresql_url)
    maildrops.deposit(database, b"Subject: x\r\n\r\n.\r\n", "jo@example.org")
    run("account", "rename", "jo", "ann")
    run("domain", "rename", "example.org", "example.net")
    assert run("alias", "list", "--json").json == [
        {"address": "info@example.net", "targets": ["ann@example.net"]},
        {"address": "jo@example.net", "targets": ["ann@example.net"]},
    ]
    (entry,) = run("maildrop", "list", "ann", "--json").json
    assert run("maildrop", "show", "ann", entry["unique_id"]).out.endswith("Subject: x\r\n\r\n.\r\n")
    assert run("database", "check").out == "the store adds up\n"

    async def while_locked() -> int:
        found = settings.load(on_postgresql.file, {})
        store = Store(database, state_dir=found.state_dir, reserve_octets=0)
        with database.reading() as connection:
            ann = accounts.find_account(connection, Mailbox("ann", "example.net"))
        lock = await store.lock_maildrop(ann.id, holder="192.0.2.1")
        refused = await asyncio.to_thread(on_postgresql, "account", "remove", "ann", "--yes")
        lock.release()
        await store.close()
        return refused.code

    assert asyncio.run(while_locked()) == 75
    run("account", "remove", "ann", "--yes")
    assert run("account", "list", "--json").json == []


def test_a_server_that_does_not_answer_is_said_plainly(
    mailstack: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILSTACK_DATABASE_URL", "postgresql://mail:s3cret@127.0.0.1:1/mail")
    refused = mailstack("account", "list")
    assert refused.code == 69
    assert refused.err.startswith("mailstack: the database")
    assert "s3cret" not in refused.err
    assert refused.err.count("\n") == 1


def test_an_empty_database_names_the_command_that_fills_it(
    mailstack: CommandLine, postgresql_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgresql.create_database(postgresql_server, "empty")
    monkeypatch.setenv("MAILSTACK_DATABASE_URL", url)
    refused = mailstack("account", "list")
    assert refused.code == 78
    assert "run: mailstack database upgrade" in refused.err
    mailstack.good("database", "upgrade")
    assert mailstack.good("account", "list", "--json").json == []
    postgresql.drop_database(postgresql_server, "empty")
