"""What keeps the server from starting is said in a sentence, with a code for scripts, and nothing is lost."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.appliance import SMTP_PORT, Appliance


def refused(appliance: Appliance, *arguments: str) -> tuple[int, str]:
    """Start it in vain; return the exit code and what it said."""
    process = appliance.run(*arguments)
    code = process.wait()
    assert process.read_stdout() == b"", "it said ready"
    said = appliance.said()
    assert "Traceback" not in said
    return code, said


def set_key(appliance: Appliance, old: str, new: str) -> None:
    text = appliance.config.read_text()
    assert old in text
    appliance.config.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("[smtp]", "[smtp]\nmax_mesage_size = 1", "smtp.max_mesage_size: there is no such setting"),
        ("[smtp]", '[smtp]\nmax_message_size = "much"', "smtp.max_message_size: "),
        ("[pop3]", "[pop3]\nidle = 5", "pop3.idle: "),
        (f":{SMTP_PORT}", ":99999", "smtp.listen: "),
        ("[tls]", "[tls", "not TOML"),
    ],
)  # fmt: skip
def test_a_wrong_setting(appliance: Appliance, old: str, new: str, reason: str) -> None:
    set_key(appliance, old, new)

    code, said = refused(appliance)

    assert code == os.EX_CONFIG
    assert str(appliance.config) in said
    assert reason in said


def test_no_settings(appliance: Appliance) -> None:
    appliance.config.unlink()

    code, said = refused(appliance)

    assert code == os.EX_CONFIG
    assert f"{appliance.config}: the settings file cannot be read" in said


def _no_certificate(appliance: Appliance) -> None:
    appliance.certificate.unlink()


def _wrong_key(appliance: Appliance) -> None:
    appliance.certificate.write_text("-----BEGIN CERTIFICATE-----\n")


@pytest.mark.parametrize("spoil", [_no_certificate, _wrong_key])
def test_a_bad_certificate(appliance: Appliance, spoil: Callable[[Appliance], None]) -> None:
    spoil(appliance)

    code, said = refused(appliance)

    assert code == os.EX_CONFIG
    assert str(appliance.certificate) in said


@pytest.mark.parametrize("revision", ["0000", "9999"])
def test_another_schema(any_appliance: Appliance, revision: str) -> None:
    with any_appliance.database() as database, database.writing() as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")

    code, said = refused(any_appliance)

    assert code == os.EX_CONFIG
    assert f"the database has schema {revision}" in said
    assert ("mailstack database upgrade" in said) == (revision == "0000")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_database(appliance: Appliance, workers: str) -> None:
    (appliance.state_dir / "mail.db").unlink()

    code, said = refused(appliance, "--workers", workers)

    assert code == os.EX_CONFIG
    assert "mailstack database upgrade" in said


def test_a_file_that_is_no_database(appliance: Appliance) -> None:
    path = appliance.state_dir / "mail.db"
    path.write_bytes(b"this is no database, but it is somebody's file" * 1000)
    before = path.read_bytes()

    code, said = refused(appliance)

    assert code == os.EX_UNAVAILABLE
    assert "not a database" in said
    assert path.read_bytes() == before


def test_no_state_directory(tmp_path: Path) -> None:
    with Appliance(tmp_path) as appliance:
        appliance.state_dir.rmdir()

        code, said = refused(appliance)

        assert code == os.EX_CONFIG
        assert str(appliance.state_dir) in said


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_port_in_use(appliance: Appliance, workers: str) -> None:
    with socket.create_server((appliance.host, SMTP_PORT)):
        code, said = refused(appliance, "--workers", workers)

    assert code not in (0, os.EX_SOFTWARE)
    assert f"cannot listen on {appliance.host}:{SMTP_PORT}: address already in use" in said
    appliance.start()


def test_the_database_server_is_away(tmp_path: Path) -> None:
    with Appliance(tmp_path, database_url=f"postgresql://nobody@/none?host={tmp_path}") as appliance:
        code, said = refused(appliance)

    assert code == os.EX_UNAVAILABLE
    assert said.count("\n") == 1


def test_a_locked_database_does_not_keep_it_from_starting(appliance: Appliance) -> None:
    with closing(sqlite3.connect(appliance.state_dir / "mail.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        appliance.start()
