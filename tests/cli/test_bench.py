"""`mailstack bench`: it measures the server that runs, and leaves it as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import func, select

from mailstack.cli.bench_accounts import FILE
from mailstack.store import accounts
from mailstack.store.tables import message
from tests.cli.conftest import CommandLine
from tests.support.appliance import DOMAIN, PASSWORD, Appliance, retrieved

SHORT = ("--seconds", "0.2", "--connections", "3")


def bench(appliance: Appliance, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mailstack", "--config", str(appliance.config), "bench", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=100)


def stored(appliance: Appliance) -> tuple[list[str], int]:
    with appliance.database() as database, database.reading() as connection:
        addresses = [str(each.mailbox) for each in accounts.list_accounts(connection)]
        return addresses, connection.scalar(select(func.count()).select_from(message)) or 0


def test_it_measures_and_leaves_neither_mail_nor_accounts(any_appliance: Appliance) -> None:
    any_appliance.start()
    before = stored(any_appliance)
    done = bench(any_appliance, *SHORT, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [row["unit"] for row in told["rows"]] == ["writes", "messages", "messages", "sessions", "MB"]
    for row in told["rows"]:
        assert row["done"] > 0
        assert row["per_second"] > 0
        assert 0 < row["median_milliseconds"] <= row["p99_milliseconds"]
    assert len(told["advice"]) == 2
    assert stored(any_appliance) == before
    assert any_appliance.findings() == []
    any_appliance.stop()


def test_people_get_a_table_and_what_would_help(appliance: Appliance) -> None:
    appliance.start()
    done = bench(appliance, *SHORT)
    assert done.returncode == 0, done.stderr
    assert "deliver, 3 connections" in done.stdout
    assert "A synced write takes" in done.stdout
    appliance.stop()


def test_an_account_of_ones_own_has_to_be_empty_and_is_so_again(appliance: Appliance) -> None:
    appliance.start()
    appliance.send(b"Subject: mine\r\n\r\n", "anna")
    words = (*SHORT, "--json", "--password-stdin", "--account")
    refused = bench(appliance, *words, f"anna@{DOMAIN}", stdin=f"{PASSWORD}\n")
    assert refused.returncode == os.EX_USAGE
    assert "holds 1 messages" in refused.stderr
    for secret, code, said in (("", 65, "the password is empty"), ("wrong", 75, "the server said: ")):
        refused = bench(appliance, *words, f"ben@{DOMAIN}", stdin=f"{secret}\n")
        assert (refused.returncode, said in refused.stderr) == (code, True), refused.stderr
    refused = bench(appliance, *SHORT, "--account", f"ben@{DOMAIN}")
    assert (refused.returncode, "say --password-stdin" in refused.stderr) == (os.EX_USAGE, True)
    done = bench(appliance, *words, f"ben@{DOMAIN}", stdin=f"{PASSWORD}\n")
    assert done.returncode == 0, done.stderr
    assert appliance.snapshot("ben").messages == 0
    connection = appliance.pop3("anna")
    assert b"Subject: mine" in retrieved(connection, 1)
    connection.quit()
    appliance.stop()


def test_it_asks_the_server_where_it_listens(appliance: Appliance, monkeypatch: pytest.MonkeyPatch) -> None:
    appliance.start()
    monkeypatch.setenv("MAILSTACK_SMTP__LISTEN", "127.0.0.1:1")  # the server's own settings were others
    done = bench(appliance, *SHORT)
    assert done.returncode == 0, done.stderr
    appliance.stop()


def test_it_loads_no_other_host_unless_told_to(mailstack: CommandLine) -> None:
    done = mailstack("bench", "--host", "192.0.2.1")
    assert done.code == os.EX_USAGE
    assert "--beyond-loopback" in done.err


def test_without_a_server_it_says_how_to_start_one(mailstack: CommandLine) -> None:
    done = mailstack("bench", *SHORT)
    assert done.code == os.EX_UNAVAILABLE
    assert "mailstack serve" in done.err


def test_its_help_has_an_example(mailstack: CommandLine) -> None:
    assert "Example: mailstack bench" in mailstack.good("bench", "--help").out


@pytest.mark.parametrize("option", ["--seconds", "--connections"])
def test_its_load_has_bounds(mailstack: CommandLine, option: str) -> None:
    assert mailstack("bench", option, "1000").code == os.EX_USAGE


@contextmanager
def started(appliance: Appliance) -> Iterator[subprocess.Popen[str]]:
    """One that has its accounts and is in the middle of its load; it ends with the block at the latest."""
    words = ["--config", str(appliance.config), "bench", "--seconds", "30", "--connections", "3"]
    with subprocess.Popen(
        [sys.executable, "-m", "mailstack", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            while "deliver" not in process.stderr.readline():
                assert process.poll() is None
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(appliance: Appliance, number: signal.Signals) -> None:
    appliance.start()
    before = stored(appliance)
    with started(appliance) as process:
        process.send_signal(number)
        assert process.wait(timeout=30) != 0
    assert stored(appliance) == before
    assert not list(appliance.folder.rglob(FILE))
    appliance.stop()


def test_what_a_killed_one_left_the_next_one_removes_and_nothing_else(appliance: Appliance) -> None:
    appliance.start()
    appliance.add_accounts("bench-deadbeef-0")  # somebody's own
    before = stored(appliance)
    with started(appliance) as process:
        process.kill()
    assert len(stored(appliance)[0]) == len(before[0]) + 3
    done = bench(appliance, *SHORT)
    assert done.returncode == 0, done.stderr
    assert "removing 3 accounts" in done.stderr
    assert stored(appliance) == before
    appliance.stop()


def test_two_do_not_run_at_once(appliance: Appliance) -> None:
    appliance.start()
    with started(appliance) as process:
        second = bench(appliance, *SHORT)
        assert second.returncode == os.EX_TEMPFAIL
        assert "another mailstack bench is running" in second.stderr
        process.terminate()
        process.wait(timeout=30)
    appliance.stop()


def test_a_server_without_room_gets_no_load(appliance: Appliance, monkeypatch: pytest.MonkeyPatch) -> None:
    appliance.start()
    before = stored(appliance)
    disk = os.statvfs(appliance.folder)
    # All of it, and not what is free now: others write and remove files meanwhile.
    monkeypatch.setenv("MAILSTACK_STORE__RESERVE", str(disk.f_blocks * disk.f_frsize))
    done = bench(appliance, *SHORT)
    assert done.returncode == os.EX_TEMPFAIL
    assert "above the reserve" in done.stderr
    assert stored(appliance) == before
    appliance.stop()
