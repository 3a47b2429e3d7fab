"""A whole copy of the database, as it is made before its schema changes.

A migration may touch anything, so what is copied is the database itself and not what we know of it:
SQLite's by its own backup, PostgreSQL's by its own programs.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from mailstack.errors import BadData, StoreFull, StoreUnavailable
from mailstack.files import publish
from mailstack.store.engine import Database

_PAGES_A_STEP: Final = 2048


def take(database: Database, folder: Path, revision: str) -> Path:
    """Copy the whole database into a new file of the folder and verify it; return its path.

    No other upgrade of this database may run meanwhile. Raises StoreFull, StoreUnavailable, or BadData
    where the copy is not what the database is.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    path = folder / f"{revision}-{stamp}.{'db' if database.is_sqlite else 'dump'}"
    passing = path.with_name(path.name + ".partial")
    for left in folder.glob("*.partial"):  # by an upgrade that was killed
        left.unlink()
    try:
        copy(database, passing)
        publish(passing, path)
    finally:
        passing.unlink(missing_ok=True)
    return path


def copy(database: Database, target: Path) -> None:
    """Copy the whole database into a new file and verify that; raises as `take` does."""
    if database.is_sqlite:
        _copy_file(database, target)
    else:
        _dump(database, target)


def load(database: Database, dump: Path) -> None:
    """Fill an empty PostgreSQL database from a copy of another."""
    _run(database, "pg_restore", "--no-owner", f"--dbname={_libpq(database)}", str(dump))


def _copy_file(database: Database, target: Path) -> None:
    size = os.stat(str(database.path)).st_size
    free = shutil.disk_usage(target.parent).free
    if free < size:
        raise StoreFull(
            f"a snapshot needs {size} octets and {target.parent} has {free} free;"
            " make room, or make a backup elsewhere and say --no-snapshot"
        )
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with (
            closing(sqlite3.connect(str(database.path), isolation_level=None)) as source,
            closing(sqlite3.connect(target, isolation_level=None)) as copy,
        ):
            # Within a transaction of its own the source stands still: without one, every commit of
            # another process would make the copy begin anew.
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            source.backup(copy, pages=_PAGES_A_STEP)
            copy.execute("PRAGMA journal_mode=DELETE")
            if (said := copy.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
                raise BadData(f"the snapshot is damaged, and so may the database be: {said}")
            for table in _tables(source):
                counted = f'SELECT count(*) FROM "{table}"'
                if source.execute(counted).fetchone() != copy.execute(counted).fetchone():
                    raise BadData(f"the snapshot has not all rows of the table {table}")
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the snapshot failed: {error}") from error


def _tables(file: sqlite3.Connection) -> list[str]:
    names = file.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
    return [name for (name,) in names]


def _dump(database: Database, target: Path) -> None:
    _run(database, "pg_dump", "--format=custom", f"--file={target}", f"--dbname={_libpq(database)}")
    target.chmod(0o600)
    _run(database, "pg_restore", "--list", str(target), output=subprocess.DEVNULL)


def _run(database: Database, program: str, *arguments: str, output: int | None = None) -> None:
    if shutil.which(program) is None:
        raise StoreUnavailable(
            f"the program {program} is not here (Debian: postgresql-client); make a copy yourself, on the"
            " database's own host: pg_dump --format=custom --file=FILE DATABASE, and say --no-snapshot"
        )
    password = {"PGPASSWORD": str(database.url.password)} if database.url.password else {}
    done = subprocess.run(
        [program, *arguments],
        env={**os.environ, **password},  # not an argument, which every user of the host could see
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise StoreUnavailable(f"{program} failed: {' '.join(done.stderr.split())}")


def _libpq(database: Database) -> str:
    """The URL as PostgreSQL's own programs read it, without the password."""
    return database.url.set(drivername="postgresql", password=None).render_as_string()
