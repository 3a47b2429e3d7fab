"""Fixtures that every folder of tests shares: migrated databases on both engines, both sides of TLS."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import math
import shutil
import signal
import ssl
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from mailstack.service.tls import write_self_signed
from mailstack.store import migrate
from mailstack.store.engine import Database
from tests.support import postgresql
from tests.support.appliance import Appliance, copy_template

_numbers = itertools.count()

# A shell starts what it runs in the background with SIGINT ignored, and programs inherit that: then
# no server that a test starts could be stopped by Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file at the newest schema; tests copy it."""
    path = tmp_path_factory.mktemp("template") / "mail.db"
    database = Database(f"sqlite:///{path}")
    migrate.upgrade(database, lambda text: None)
    database.dispose()
    return path


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The superuser's URL of a running server that has a database `template` at the newest schema."""
    # Not below pytest's own folder: that one is closed to the unprivileged user the server runs as,
    # and its path may be too long for a unix socket.
    with postgresql.temporary_directory() as directory, postgresql.server(directory) as server:
        database = Database(postgresql.create_database(server.url, "template"))
        migrate.upgrade(database, lambda text: None)
        database.dispose()
        yield server.url


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    """A fresh SQLite database."""
    path = tmp_path / "mail.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    """A fresh PostgreSQL database."""
    name = f"test{next(_numbers)}"
    yield postgresql.create_database(postgresql_server, name, template="template")
    postgresql.drop_database(postgresql_server, name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh database of each kind in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A fresh, opened database of each kind in turn."""
    opened = Database(database_url)
    yield opened
    opened.dispose()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its private key."""
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "certificate.pem", folder / "private_key.pem"
    write_self_signed(*files, "localhost")
    return files


@pytest.fixture(scope="session")
def server_context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    """What a server shakes hands with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture(scope="session", params=["TLSv1_3", "TLSv1_2"])
def client_context(request: pytest.FixtureRequest, certificate: tuple[Path, Path]) -> ssl.SSLContext:
    """What a client trusts, of each version in turn: who of the two ends the handshake differs."""
    context = ssl.create_default_context(cafile=str(certificate[0]))
    context.maximum_version = ssl.TLSVersion[request.param]
    return context


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def` tests on uvloop, the loop that serves, in debug mode."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    with _origins_unnoted(), asyncio.Runner(debug=True, loop_factory=uvloop.new_event_loop) as runner:
        # What it would log of a slow callback tells how busy the machine is, in the midst of what is tested.
        runner.get_loop().slow_callback_duration = math.inf
        runner.run(pyfuncitem.obj(**arguments))
    return True


@contextmanager
def _origins_unnoted() -> Iterator[None]:
    """Spare debug mode the stack that it takes of every handle: half of the time of a conversation.

    Only the repr of a handle shows it. The loop asks for it without the lines' text, as nobody else does.
    """
    extract = traceback.StackSummary.extract

    def without_those(*arguments: Any, lookup_lines: bool = True, **options: Any) -> traceback.StackSummary:
        return extract(*arguments, **options) if lookup_lines else traceback.StackSummary()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traceback.StackSummary, "extract", without_those)
        yield


@pytest.fixture
def appliance(tmp_path: Path, sqlite_template: Path) -> Iterator[Appliance]:
    """An appliance on SQLite, not started, with the accounts `anna` and `ben`."""
    with Appliance(tmp_path) as made:
        copy_template(sqlite_template, made)
        made.add_accounts("anna", "ben")
        yield made


@pytest.fixture
def appliance_on_postgresql(tmp_path: Path, postgresql_url: str) -> Iterator[Appliance]:
    """The same on PostgreSQL."""
    with Appliance(tmp_path, database_url=postgresql_url) as made:
        made.add_accounts("anna", "ben")
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def any_appliance(request: pytest.FixtureRequest) -> Appliance:
    """An appliance on each kind of database in turn."""
    on_sqlite = request.param == "sqlite"
    made: Appliance = request.getfixturevalue("appliance" if on_sqlite else "appliance_on_postgresql")
    return made
