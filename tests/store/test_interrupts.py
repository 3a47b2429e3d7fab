"""A Ctrl-C in the middle of a statement keeps nobody waiting, whatever still remembers the statement."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, insert, select

from mailstack.mail.spool import PART_OCTETS
from mailstack.store.backups import maildrop
from mailstack.store.backups.folder import Folder
from mailstack.store.engine import Database
from mailstack.store.events import Kind
from mailstack.store.tables import domain
from mailstack.store.tables import event as trace
from tests.support import maildrops
from tests.support.backups import JO, back_up, bring_back, expunge, mail
from tests.support.contents import findings

TWO_PARTS = b"x" * PART_OCTETS + b"\r\n"


@contextmanager
def interrupted(database: Database, beginning: str, *, nth: int = 1) -> Iterator[None]:
    """A signal arrives while the driver is at the nth statement that begins so; it is heard right after."""
    seen = itertools.count(1)

    def interrupt(cursor: Any, statement: str, parameters: Any, context: Any) -> None:
        if statement.startswith(beginning) and next(seen) == nth:
            (cursor.executemany if context.executemany else cursor.execute)(statement, parameters)
            raise KeyboardInterrupt  # its trace keeps the cursor, and that the statement

    names = ("do_execute", "do_executemany")
    for name in names:
        event.listen(database.engine, name, interrupt)
    try:
        yield
    finally:
        for name in names:
            event.remove(database.engine, name, interrupt)


def test_an_interrupted_writer_gives_the_write_lock_back(database: Database) -> None:
    rows = [{"name": f"{name}.example", "created_at": 1} for name in "ab"]
    with (
        pytest.raises(KeyboardInterrupt) as caught,
        interrupted(database, "INSERT"),
        database.writing() as connection,
    ):
        connection.execute(insert(domain), rows)
    with database.writing() as connection:
        assert connection.execute(select(func.count()).select_from(domain)).scalar_one() == 0
        connection.execute(insert(domain), rows)
    assert caught.tb is not None


def test_an_interrupted_restore_tells_what_it_brought_back(
    database: Database, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maildrop, "_STEP_MESSAGES", 1)  # a COMMIT for each, so that some come before it
    maildrops.add_accounts(database, JO)
    for number in range(3):
        maildrops.deposit(database, b"Subject: %d\r\n\r\n" % number + TWO_PARTS, JO)
    back_up(database, folder)
    expunge(database, 1, 1, 2, 3)
    with pytest.raises(KeyboardInterrupt), interrupted(database, "INSERT INTO content", nth=2):
        bring_back(database, folder, tmp_path, "jo")
    assert len(mail(database, "jo")) == 1
    with database.reading() as connection:
        told = connection.execute(select(trace.c.told).where(trace.c.kind == Kind.RESTORED)).scalars().all()
    assert [json.loads(each)["uids"] for each in told] == ["1"]
    assert bring_back(database, folder, tmp_path, "jo") == 2
    assert findings(database) == []
