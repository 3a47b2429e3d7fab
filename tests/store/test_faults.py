"""Every statement and every COMMIT of everything that writes fails once, in each way that it can.

The points are found by going on until the work comes through, so none is left out: a statement that
somebody adds tomorrow is a point tomorrow.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from mailstack.errors import MaildropInUse, StoreUnavailable, Temporary
from mailstack.store.engine import Database
from tests.store.operations import OPERATIONS, Operation, furnish
from tests.support import postgresql
from tests.support.appliance import wait_until
from tests.support.contents import Contents, contents, findings
from tests.support.faults import Faults, Kind

_numbers = itertools.count()


class Copies(NamedTuple):
    """Two databases, and what makes more like them: URLs of one kind of database."""

    empty: str
    furnished: str
    of: Callable[[str], str]


class Stores:
    """Makes stores that are alike: furnished, prepared for one operation, and opened."""

    def __init__(self, copies: Copies, folder: Path, operation: Operation) -> None:
        self._copies = copies
        self._folder = folder
        self._opened: Database | None = None
        # Preparing may take longer than the operation itself; so it is done once, and copied.
        self._prepared = folder / "prepared"
        self._prepared.mkdir()
        furnished = copies.of(copies.furnished)
        database = Database(furnished)
        operation.prepare(database, self._prepared)
        if database.is_sqlite:
            database.checkpoint("RESTART")
        database.dispose()
        self._source = copies.empty if operation.into_empty else furnished

    def fresh(self) -> tuple[Database, Path]:
        """A store nobody has touched, and a folder of its own."""
        self.close()
        folder = self._folder / f"fresh{next(_numbers)}"
        shutil.copytree(self._prepared, folder)
        self._opened = Database(self._copies.of(self._source))
        return self._opened, folder

    def close(self) -> None:
        if self._opened is not None:
            self._opened.dispose()


@pytest.fixture(scope="module")
def furnished_sqlite(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two databases that copies are made of."""
    folder = tmp_path_factory.mktemp("furnished")
    for name in ("empty", "furnished"):
        shutil.copy(sqlite_template, folder / f"{name}.db")
    database = Database(f"sqlite:///{folder / 'furnished.db'}")
    furnish(database)
    database.checkpoint("RESTART")
    database.dispose()
    return folder


@pytest.fixture(scope="module")
def furnished_postgresql(postgresql_server: str) -> Iterator[str]:
    """The same two as databases of a server."""
    postgresql.create_database(postgresql_server, "empty", template="template")
    database = Database(postgresql.create_database(postgresql_server, "furnished", template="template"))
    furnish(database)
    database.dispose()
    yield postgresql_server
    for name in ("empty", "furnished"):
        postgresql.drop_database(postgresql_server, name)


@pytest.fixture
def copies(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Copies]:
    """The parameter says on which kind of database."""
    if request.param == "sqlite":
        folder = request.getfixturevalue("furnished_sqlite")

        def on_sqlite(url: str) -> str:
            target = tmp_path / f"copy{next(_numbers)}.db"
            shutil.copy(url.removeprefix("sqlite:///"), target)
            return f"sqlite:///{target}"

        yield Copies(*(f"sqlite:///{folder / name}.db" for name in ("empty", "furnished")), on_sqlite)
        return
    server, made = request.getfixturevalue("furnished_postgresql"), []

    def on_postgresql(url: str) -> str:
        made.append(f"copy{next(_numbers)}")
        return postgresql.create_database(server, made[-1], template=urlsplit(url).path[1:])

    yield Copies(
        *(server.replace("/postgres?", f"/{name}?") for name in ("empty", "furnished")), on_postgresql
    )
    for name in made:
        postgresql.drop_database(server, name)


def test_a_cut_takes_the_write_lock_along_whoever_remembers_a_statement(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    faults, before = Faults(database), contents(database)
    with database.writing():  # the connection that is kept is made, and asked for nothing but to write
        pass
    cursors: list[Any] = []

    def write() -> None:
        with database.writing() as connection:
            cursors.append(connection.connection.cursor())
            cursors[-1].executemany("INSERT INTO domain (name, created_at) VALUES (?, 1)", [["a"], ["b"]])

    with faults.at(2, Kind.CUT), pytest.raises(StoreUnavailable):
        write()
    assert faults.struck == "COMMIT"
    assert contents(database) == before
    write()
    database.dispose()


def failure(operation: Operation, database: Database, folder: Path) -> Exception | None:
    """Do it; what came of it."""
    try:
        operation.run(database, folder)
    except Exception as error:
        return error
    return None


def again(operation: Operation, database: Database, folder: Path) -> Exception | None:
    """Do it once more, as soon as PostgreSQL has noticed that a connection is gone, and freed its locks."""
    error: list[Exception | None] = []

    def is_free() -> bool:
        error[:] = [failure(operation, database, folder)]
        return not isinstance(error[0], MaildropInUse)

    wait_until(is_free, what="the locks are free")
    return error[0]


def after(stores: Stores, operation: Operation) -> Contents:
    """What the store has when nothing fails."""
    database, folder = stores.fresh()
    assert failure(operation, database, folder) is None
    assert findings(database) == []
    return contents(database)


def cases() -> list[object]:
    """Everything; what has many points and many transactions takes long, so every day only a part of that."""
    made: list[object] = []
    for database, operation, kind in itertools.product(("sqlite", "postgresql"), OPERATIONS, Kind):
        daily = operation.whole or kind is (Kind.UNHEARD if database == "sqlite" else Kind.CUT)
        name = f"{database}-{operation.name}-{kind.value}"
        marks = () if daily else pytest.mark.long
        made.append(pytest.param(database, operation, kind, id=name, marks=marks))
    return made


@pytest.mark.parametrize(("copies", "operation", "kind"), cases(), indirect=["copies"])
def test_a_fault_at_every_point(copies: Copies, operation: Operation, kind: Kind, tmp_path: Path) -> None:
    stores = Stores(copies, tmp_path, operation)
    wanted = after(stores, operation)
    check = _all_or_nothing if operation.whole else _goes_on
    number = check(stores, operation, kind, wanted)
    stores.close()
    print(f"{operation.name}: {number} points, {kind.value}")
    assert number >= 2, "a statement and a COMMIT at least"


def _all_or_nothing(stores: Stores, operation: Operation, kind: Kind, wanted: Contents) -> int:
    """After a failure the store is as before, or as wanted where the COMMIT was only not heard of."""
    database, folder = stores.fresh()
    before, faults = contents(database), Faults(database)
    for number in itertools.count():
        with faults.at(number, kind):
            error = failure(operation, database, folder)
        if faults.struck is None:
            assert error is None
            assert contents(database) == wanted
            assert findings(database) == []
            return number
        assert isinstance(error, Temporary), faults.struck
        found = contents(database)
        if kind is Kind.UNHEARD and faults.struck == "COMMIT":
            assert found == wanted
            database, folder = stores.fresh()
            faults = Faults(database)
        else:
            assert found == before, faults.struck
    raise AssertionError


def _goes_on(stores: Stores, operation: Operation, kind: Kind, wanted: Contents) -> int:
    """After a failure nothing is half done, and doing it again does the rest."""
    for number in itertools.count():
        database, folder = stores.fresh()
        faults = Faults(database)
        with faults.at(number, kind):
            error = failure(operation, database, folder)
        if faults.struck is None:
            assert error is None
            assert contents(database) == wanted
            return number
        assert error is None or isinstance(error, Temporary), faults.struck
        operation.between(database, folder)
        assert again(operation, database, folder) is None, faults.struck
        operation.between(database, folder)
        assert contents(database) == wanted, faults.struck
        assert findings(database) == []
    raise AssertionError
