"""A whole copy of the database before its schema changes, and a place to rehearse the change.

A migration may touch anything, so what is copied is the database itself and not what we know of it:
SQLite's by its own backup, PostgreSQL's by its own programs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy import text

from mailstack.errors import BadData, StoreFull, StoreUnavailable
from mailstack.files import publish
from mailstack.store import integrity, migrate, schema
from mailstack.store.engine import Database

_PAGES_A_STEP: Final = 2048
_ROWS_A_STEP: Final = 5000
_REHEARSAL: Final = "rehearsal"

REHEARSED: Final = "A copy that mailstack made to rehearse an upgrade, and removes."
"""What PostgreSQL tells of such a database; by it the next rehearsal knows one that a killed one has left."""

# By columns that every revision has: what must be the same after a migration as before.
_MAIL: Final = (
    "SELECT account_id, uid, unique_id, message_id, octets FROM entry ORDER BY 1, 2",
    "SELECT id, local_part, password_hash, next_uid, messages, octets FROM account ORDER BY 1",
    "SELECT id, octets, reverse_path FROM message ORDER BY 1",
)


class Rehearsal(NamedTuple):
    """How an upgrade went on a copy."""

    before: str | None
    after: str | None
    seconds: float
    findings: tuple[str, ...]


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
        if database.is_sqlite:
            _copy_file(database, passing)
        else:
            _dump(database, passing)
            _run(database, "pg_restore", "--list", str(passing), output=subprocess.DEVNULL)
        publish(passing, path)
    finally:
        passing.unlink(missing_ok=True)
    return path


def rehearse(database: Database, folder: Path, report: Callable[[str], None]) -> Rehearsal:
    """Upgrade a copy, check it whole, and throw it away; the database itself is only read."""
    folder.mkdir(mode=0o700, exist_ok=True)
    with _alone(folder, report), _copied(database, folder) as copy:
        with copy.reading() as connection:
            before = schema.revision(connection)
        mail = fingerprint(copy)
        began = time.monotonic()
        migrate.upgrade(copy, report)
        seconds = time.monotonic() - began
        with copy.reading() as connection:
            after = schema.revision(connection)
        findings = [finding.text for step in integrity.check(copy) for finding in step.findings]
        if fingerprint(copy) != mail:
            findings.insert(0, "the upgrade changes accounts, messages or unique-ids")
        findings += migrate.differences(copy)
    return Rehearsal(before, after, seconds, tuple(findings))


def fingerprint(database: Database) -> str:
    """A digest of every account, entry and message, by what no migration may change."""
    digest = hashlib.sha256()
    for statement in _MAIL:
        with database.reading() as connection:
            rows = connection.execute(text(statement), execution_options={"yield_per": _ROWS_A_STEP})
            for row in rows:
                digest.update(repr(tuple(row)).encode())
    return digest.hexdigest()


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


@contextmanager
def _alone(folder: Path, report: Callable[[str], None]) -> Iterator[None]:
    """The only rehearsal in this folder; what one that was killed has left is removed."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with migrate.holding(descriptor, lambda: report("another rehearsal is running; waiting for it")):
        shutil.rmtree(folder / _REHEARSAL, ignore_errors=True)
        yield


@contextmanager
def _copied(database: Database, folder: Path) -> Iterator[Database]:
    place = folder / _REHEARSAL
    place.mkdir(mode=0o700)
    try:
        with _upgradable(database, place) as copy:
            yield copy
    finally:
        shutil.rmtree(place)


@contextmanager
def _upgradable(database: Database, place: Path) -> Iterator[Database]:
    if database.is_sqlite:
        _copy_file(database, place / "mail.db")
        copy = Database(f"sqlite:///{place / 'mail.db'}")
        try:
            yield copy
        finally:
            copy.dispose()
        return
    name = f"{database.url.database}_rehearsal"
    _dump(database, place / "mail.dump")
    with database.reading() as connection:
        told = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = :name"
        left = connection.execute(text(told), {"name": name}).scalar_one_or_none() == REHEARSED
    if left:
        _outside(database, f'DROP DATABASE "{name}"')
    _outside(database, f'CREATE DATABASE "{name}"')
    _outside(database, f"COMMENT ON DATABASE \"{name}\" IS '{REHEARSED}'")
    copy = Database(database.url.set(database=name).render_as_string(hide_password=False))
    try:
        _run(copy, "pg_restore", "--no-owner", f"--dbname={_libpq(copy)}", str(place / "mail.dump"))
        yield copy
    finally:
        copy.dispose()
        _outside(database, f'DROP DATABASE "{name}"')


def _dump(database: Database, target: Path) -> None:
    _run(database, "pg_dump", "--format=custom", f"--file={target}", f"--dbname={_libpq(database)}")
    target.chmod(0o600)


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


def _outside(database: Database, statement: str) -> None:
    with database.translated(), database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text(statement))
