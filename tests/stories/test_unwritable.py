"""A database that can be read and not written: whoever looks is told, before a sender is."""

from __future__ import annotations

import io
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from mailstack import cli
from mailstack.errors import StoreUnavailable
from mailstack.store import fitness
from mailstack.store.engine import Database
from tests.stories.test_metrics import fetched, watched
from tests.support.appliance import Appliance

__all__ = ["watched"]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file read-only for root")


@contextmanager
def read_only(file: Path) -> Iterator[None]:
    """To root what belongs to others is no obstacle, but this is."""
    subprocess.run(["mount", "--bind", file, file], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", file], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", file], check=True)


def told(appliance: Appliance, *arguments: str) -> str:
    """What a command says that finds something wrong."""
    with io.StringIO() as said, redirect_stdout(said):
        assert cli.main(["--config", str(appliance.config), *arguments]) != 0
        return said.getvalue()


@as_root
def test_a_server_does_not_start_on_a_file_that_it_cannot_write(appliance: Appliance) -> None:
    appliance.start()
    appliance.stop()
    with read_only(appliance.state_dir / "mail.db"):
        assert appliance.run().wait(30) == os.EX_UNAVAILABLE
        assert (
            "cannot be written: it, the files beside it and their folder must belong to the server"
            in appliance.said()
        )
        doctor = told(appliance, "doctor", "--offline", "--json")
        (found,) = [each for each in json.loads(doctor)["findings"] if each["check"] == "database"]
        assert (found["level"], "cannot be written" in found["what"]) == ("wrong", True)


@as_root
def test_one_that_becomes_so_meanwhile_is_told_by_health_status_and_a_warning(watched: Appliance) -> None:
    watched.start()
    assert fetched(watched, "/health")[0] == 200
    with read_only(watched.state_dir / "mail.db"):
        code, said = fetched(watched, "/health")
        assert (code, "cannot be written" in json.loads(said)["reasons"][0]) == (503, True)
        assert "WARNING: the database" in told(watched, "status")
    assert fetched(watched, "/health")[0] == 200


def test_the_log_warns_of_mail_that_the_store_does_not_take_and_not_of_each(appliance: Appliance) -> None:
    appliance.start()
    with appliance.database() as database, database.writing() as connection:
        connection.exec_driver_sql("DROP TABLE message")
    for _ in range(3):
        assert appliance.send(b"Subject: none\r\n\r\n", "anna")[0] == 451
    appliance.stop()
    lines = [line for line in appliance.said().splitlines() if "event=mail " in line]
    assert [line.split(" event")[0].rpartition("=")[2] for line in lines] == ["warning", "info", "info"]


def test_who_looks_waits_for_nobody_who_writes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'mail.db'}"
    writer, looker = Database(url), Database(url)
    with writer.writing():
        looking = threading.Thread(target=fitness.require_writable, args=(looker,))
        looking.start()
        looking.join(5)
        assert not looking.is_alive()
    for each in (writer, looker):
        each.dispose()


def test_a_postgresql_server_that_only_reads_is_refused(postgresql_url: str) -> None:
    name = make_url(postgresql_url).database
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    database = Database(postgresql_url)
    with pytest.raises(StoreUnavailable, match="standby server"):
        fitness.check(database)
    database.dispose()
