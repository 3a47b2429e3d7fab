"""A real Ctrl-C, in the middle of work on a maildrop: nothing goes on behind the prompt that is back."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
from sqlalchemy import func, select

from mailstack.store.engine import Database
from mailstack.store.tables import entry
from tests.cli.conftest import CommandLine
from tests.store.operations import deposited

JO = "jo@example.org"
MESSAGES = 1700
"""Some slices of each command."""

PATIENCE_SECONDS = 30


class Turns:
    """Whoever wants to write to a store of SQLite has to wait, until it is let in; see store/turnstile.py."""

    def __init__(self, store: Database) -> None:
        self._upcoming, self._current = (
            os.open(f"{store.path}-{name}", os.O_RDWR | os.O_CREAT, 0o600) for name in ("next", "current")
        )

    def __enter__(self) -> Self:
        fcntl.flock(self._upcoming, fcntl.LOCK_EX)
        fcntl.flock(self._current, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._upcoming)
        os.close(self._current)

    def await_(self, process: subprocess.Popen[str]) -> None:
        """Until the process wants to write."""
        _until(lambda: _waits(process))

    def let_in(self, process: subprocess.Popen[str]) -> None:
        """It writes what it has waited for, and wants to write more."""
        fcntl.flock(self._upcoming, fcntl.LOCK_UN)
        _until(self._somebody_is_next)
        fcntl.flock(self._current, fcntl.LOCK_UN)
        fcntl.flock(self._upcoming, fcntl.LOCK_EX)  # as soon as it is in
        self.await_(process)
        fcntl.flock(self._current, fcntl.LOCK_EX)

    def open(self) -> None:
        """Nobody has to wait any more."""
        fcntl.flock(self._upcoming, fcntl.LOCK_UN)
        fcntl.flock(self._current, fcntl.LOCK_UN)

    def _somebody_is_next(self) -> bool:
        try:
            fcntl.flock(self._upcoming, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._upcoming, fcntl.LOCK_UN)
        return False


def _until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _waits(process: subprocess.Popen[str]) -> bool:
    rows = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    return any(row[1:3] == ["->", "FLOCK"] and int(row[5]) == process.pid for row in rows)


@contextmanager
def running(mailstack: CommandLine, *words: object) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own, as a person starts it; killed at the end."""
    command = [sys.executable, "-m", "mailstack", "--config", str(mailstack.file), *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def filled(mailstack: CommandLine, store: Database) -> CommandLine:
    """A server whose account jo has many messages."""
    mailstack.good("account", "add", JO)
    with store.writing() as connection:
        deposited(connection, *((b"Subject: %d\r\n\r\n" % n, (1,)) for n in range(MESSAGES)))
    return mailstack


def count(store: Database) -> int:
    with store.reading() as connection:
        return connection.execute(select(func.count()).select_from(entry)).scalar_one()


def unique_ids(mailstack: CommandLine) -> list[str]:
    return [each["unique_id"] for each in mailstack.good("maildrop", "list", JO, "--json").json]


def test_a_removal_ends_with_its_slice(filled: CommandLine, store: Database) -> None:
    before = unique_ids(filled)
    with Turns(store) as turns, running(filled, "maildrop", "remove", JO, *before, "--yes") as it:
        turns.await_(it)
        turns.let_in(it)
        it.send_signal(signal.SIGINT)
        assert it.wait(PATIENCE_SECONDS) == 130, "while nobody is let in, so nothing has gone on"
        assert it.communicate() == ("", "")
    left = count(store)
    assert 0 < left < MESSAGES
    assert left == len(unique_ids(filled))
    told = filled.good("maildrop", "restore", JO, "--all").out
    assert told == f"{MESSAGES - left} messages of {JO} brought back\n"
    assert unique_ids(filled) == before
    assert filled.good("database", "check").out == "the store adds up\n"


def test_a_restore_ends_with_its_slice_and_tells_what_it_brought_back(
    filled: CommandLine, store: Database, tmp_path: Path
) -> None:
    before = unique_ids(filled)
    filled.good("database", "backup", tmp_path / "backups")
    filled.good("maildrop", "remove", JO, *before, "--yes")
    restore = ("backup", "restore", tmp_path / "backups", "--account", JO, "--yes")
    with Turns(store) as turns, running(filled, *restore) as it:
        turns.await_(it)
        while not count(store):
            turns.let_in(it)
        it.send_signal(signal.SIGINT)
        turns.open()  # to what it has to tell
        assert it.wait(PATIENCE_SECONDS) == 130
        assert it.communicate() == ("", "")
    there = count(store)
    assert 0 < there < MESSAGES
    assert f"{there} messages of {JO} brought back from a backup" in filled.good("trace", JO).out
    assert filled.good(*restore).out.startswith(f"{MESSAGES - there} messages restored")
    assert unique_ids(filled) == before
    assert filled.good("database", "check").out == "the store adds up\n"


def test_an_account_is_removed_or_not(filled: CommandLine, store: Database) -> None:
    with Turns(store) as turns, running(filled, "account", "remove", JO, "--yes") as it:
        turns.await_(it)
        it.send_signal(signal.SIGINT)
        assert it.wait(PATIENCE_SECONDS) == 130
        assert it.communicate() == ("", "")
    assert count(store) == MESSAGES
    filled.good("account", "remove", JO, "--yes")
    assert count(store) == 0
