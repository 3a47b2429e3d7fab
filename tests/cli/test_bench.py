"""`mailstack bench`: it measures the server that runs, and leaves it as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from sqlalchemy import func, select

from mailstack.store.tables import message
from tests.cli.conftest import CommandLine
from tests.support.appliance import DOMAIN, PASSWORD, Appliance, retrieved

SHORT = ("--seconds", "0.2", "--connections", "3")


def bench(appliance: Appliance, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mailstack", "--config", str(appliance.config), "bench", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=100)


def stored(appliance: Appliance) -> tuple[list[str], int]:
    accounts = json.loads(appliance.command("account", "list", "--json"))
    with appliance.database() as database, database.reading() as connection:
        return [each["address"] for each in accounts], connection.scalar(
            select(func.count()).select_from(message)
        ) or 0


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
    done = bench(appliance, *words, f"ben@{DOMAIN}", stdin=f"{PASSWORD}\n")
    assert done.returncode == 0, done.stderr
    assert appliance.snapshot("ben").messages == 0
    connection = appliance.pop3("anna")
    assert b"Subject: mine" in retrieved(connection, 1)
    connection.quit()
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
