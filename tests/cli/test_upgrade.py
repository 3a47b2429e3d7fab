"""`database upgrade`: a copy first, a rehearsal on request."""

from __future__ import annotations

import pytest

from mailstack import settings
from mailstack.store import migrate, schema
from mailstack.store.engine import Database
from tests.cli.conftest import CommandLine
from tests.support import maildrops


@pytest.fixture
def older(mailstack: CommandLine, store: Database) -> CommandLine:
    """A server with mail whose database an older program has left."""
    mailstack.good("account", "add", "jo@example.org")
    maildrops.deposit(store, b"Subject: x\r\n\r\n", "jo@example.org")
    migrate.downgrade(store, lambda said: None, revision="0001")
    return mailstack


def test_an_upgrade_is_rehearsed_then_done_with_a_copy_first(older: CommandLine) -> None:
    folder = settings.load(older.file, {}).state_dir / "snapshots"
    told = older.good("database", "upgrade", "--rehearse").out
    assert told.startswith(f"a copy went from 0001 to {schema.HEAD} in")
    assert older("database", "revision", "--json").json["revision"] == "0001"
    said = older.good("database", "upgrade")
    (snapshot,) = folder.iterdir()
    assert str(snapshot) in said.err
    assert said.out == f"the schema is at {schema.HEAD} now\n"
    assert older.good("database", "check").out == "the store adds up\n"
    assert older.good("database", "upgrade").out == f"the schema is at {schema.HEAD} already\n"
    assert list(folder.iterdir()) == [snapshot]


def test_whoever_has_a_backup_may_do_without(older: CommandLine) -> None:
    older.good("database", "upgrade", "--no-snapshot")
    assert not (settings.load(older.file, {}).state_dir / "snapshots").exists()
