"""An upgrade of the schema, rehearsed: on a copy that nobody uses, which is checked whole and thrown away."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy import text

from mailstack.store import integrity, migrate, schema, snapshots
from mailstack.store.engine import Database

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
    file = place / "mail"
    snapshots.copy(database, file)
    if database.is_sqlite:
        copy = Database(f"sqlite:///{file}")
        try:
            yield copy
        finally:
            copy.dispose()
        return
    name = f"{database.url.database}_rehearsal"
    with database.reading() as connection:
        told = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = :name"
        left = connection.execute(text(told), {"name": name}).scalar_one_or_none() == REHEARSED
    if left:
        _outside(database, f'DROP DATABASE "{name}"')
    _outside(database, f'CREATE DATABASE "{name}"')
    _outside(database, f"COMMENT ON DATABASE \"{name}\" IS '{REHEARSED}'")
    copy = Database(database.url.set(database=name).render_as_string(hide_password=False))
    try:
        snapshots.load(copy, file)
        yield copy
    finally:
        copy.dispose()
        _outside(database, f'DROP DATABASE "{name}"')


def _outside(database: Database, statement: str) -> None:
    with database.translated(), database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text(statement))
