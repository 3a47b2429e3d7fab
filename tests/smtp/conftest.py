"""Fixtures of the SMTP tests: databases with accounts in them, made once, and both sides of TLS."""

from __future__ import annotations

import shutil
import ssl
from functools import partial
from pathlib import Path

import pytest

from mailstack.service.tls import write_self_signed
from mailstack.store.engine import Database
from tests.smtp.rig import HOSTNAME, furnish, running


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> dict[bool, Path]:
    """Databases without accounts and with them."""
    folder = tmp_path_factory.mktemp("furnished")
    made = {}
    for with_accounts in (False, True):
        path = made[with_accounts] = folder / f"{with_accounts}.db"
        shutil.copy(sqlite_template, path)
        database = Database(f"sqlite:///{path}")
        furnish(database, with_accounts=with_accounts)
        with database.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        database.dispose()
    return made


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What the server shakes hands with, and what its peers trust."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, private_key = folder / "certificate.pem", folder / "key.pem"
    write_self_signed(certificate, private_key, HOSTNAME)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, private_key)
    return server, ssl.create_default_context(cafile=str(certificate))


@pytest.fixture
def start(furnished, tmp_path):
    """Begin a rig: `async with start(...) as rig`."""
    return partial(running, furnished[True], tmp_path)
