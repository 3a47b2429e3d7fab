"""The schema is what the migrations make, and only that."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event, insert, inspect, select, text

from mailstack.errors import SchemaMismatch, StoreUnavailable
from mailstack.store import browse, integrity, logins, migrate, schema
from mailstack.store.engine import Database
from mailstack.store.tables import domain, metadata
from tests.support import maildrops


def test_migrations_make_the_tables_of_the_code(database: Database) -> None:
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_the_code_knows_the_newest_revision(database: Database) -> None:
    assert migrate.newest() == schema.HEAD
    with database.reading() as connection:
        schema.check(connection)


def test_down_to_nothing_and_up_again(database: Database) -> None:
    said: list[str] = []
    assert migrate.downgrade(database, said.append, revision="base")
    with database.reading() as connection:
        assert set(inspect(connection).get_table_names()) <= {"alembic_version"}
        with pytest.raises(SchemaMismatch, match="mailstack database upgrade"):
            schema.check(connection)
    assert migrate.upgrade(database, said.append)
    assert not migrate.upgrade(database, said.append)
    head = schema.HEAD
    assert said == [f"the schema went from {head} to nothing", f"the schema went from nothing to {head}"]


def test_a_newer_schema_is_refused_by_name(database: Database) -> None:
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with database.reading() as connection, pytest.raises(SchemaMismatch, match="newer than this program"):
        schema.check(connection)
    with pytest.raises(SchemaMismatch, match="9999"):
        migrate.upgrade(database, lambda text: None)


def test_a_second_upgrade_waits_for_the_first_and_says_so(database: Database) -> None:
    migrate.downgrade(database, lambda text: None, revision="base")
    inside, go_on = threading.Event(), threading.Event()
    first_said: list[str] = []
    second_said: list[str] = []

    def first_report(said: str) -> None:
        first_said.append(said)
        inside.set()
        assert go_on.wait(30)

    def second_report(said: str) -> None:
        second_said.append(said)
        go_on.set()

    first = threading.Thread(target=migrate.upgrade, args=(database, first_report))
    first.start()
    assert inside.wait(30)
    other = Database(database.url.render_as_string(hide_password=False))
    assert not migrate.upgrade(other, second_report)
    first.join()
    other.dispose()
    assert first_said == [f"the schema went from nothing to {schema.HEAD}"]
    assert second_said == ["another upgrade of this database is running; waiting for it"]


@contextmanager
def writing_past_the_pen(database: Database) -> Iterator[None]:
    """A write transaction as any program makes it that opens the file."""
    with closing(sqlite3.connect(str(database.path), isolation_level=None)) as file:
        file.execute("BEGIN IMMEDIATE")
        yield
        file.execute("COMMIT")


@pytest.mark.parametrize("writing", [Database.writing, writing_past_the_pen])
def test_an_upgrade_waits_for_whoever_writes(
    sqlite_url: str, writing: Callable[[Database], AbstractContextManager[object]]
) -> None:
    database, other = Database(sqlite_url), Database(sqlite_url)
    migrate.downgrade(database, lambda said: None, revision="0007")
    begun, ended = threading.Event(), threading.Event()

    def write() -> None:
        with writing(other):
            begun.set()
            time.sleep(0.3)
            ended.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert begun.wait(30)
    assert migrate.upgrade(database, lambda said: None)
    assert ended.is_set()
    thread.join()
    for each in (database, other):
        each.dispose()


def test_nobody_commits_between_what_an_upgrade_has_read_and_what_it_changes(sqlite_url: str) -> None:
    database, other = Database(sqlite_url), Database(sqlite_url)
    migrate.downgrade(database, lambda said: None, revision="0007")
    soon, committed = threading.Event(), threading.Event()

    def commit() -> None:
        with other.writing() as connection:
            connection.execute(insert(domain).values(id=1, name="example.org", created_at=0))
        committed.set()

    thread = threading.Thread(target=commit)

    def asked(connection: object, cursor: object, statement: str, *_: Any) -> None:
        if soon.is_set() and "FROM alembic_version" in statement:
            soon.clear()
            thread.start()
            committed.wait(0.3)  # it would be through long before that

    event.listen(database.engine, "after_cursor_execute", asked)
    assert migrate.upgrade(database, lambda said: None, first=lambda found: soon.set())
    thread.join()
    assert committed.is_set()
    with database.reading() as connection:
        assert schema.revision(connection) == schema.HEAD
        assert connection.execute(select(domain.c.name)).scalar_one() == "example.org"
    for each in (database, other):
        each.dispose()


def test_a_migration_that_would_orphan_rows_is_undone(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(sqlite_url)
    with database.writing() as connection:
        connection.execute(insert(domain).values(id=1, name="example.org", created_at=0))
        connection.execute(insert(domain).values(id=2, name="example.net", alias_of=1, created_at=0))
    scripts = tmp_path / "migrations"
    (scripts / "versions").mkdir(parents=True)
    for path in migrate.scripts().rglob("*.py"):
        (scripts / path.relative_to(migrate.scripts())).write_bytes(path.read_bytes())
    (scripts / "versions" / "9990.py").write_text(
        "from alembic import op\n"
        f"revision, down_revision = '9990', '{schema.HEAD}'\n"
        "def upgrade(): op.execute('DELETE FROM domain WHERE id = 1')\n"
        "def downgrade(): pass\n"
    )
    monkeypatch.setattr(migrate, "scripts", lambda: scripts)
    with pytest.raises(RuntimeError, match="without their parent"):
        migrate.upgrade(database, lambda text: None)
    with database.reading() as connection:
        assert schema.revision(connection) == schema.HEAD
        assert connection.execute(select(domain.c.id).order_by(domain.c.id)).scalars().all() == [1, 2]
    database.dispose()


def test_a_missing_folder_is_an_unavailable_store(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/nowhere/mail.db")
    with pytest.raises(StoreUnavailable), database.reading():
        pass


def test_migrations_and_units_are_found_in_a_checkout_and_in_a_wheel(tmp_path: Path) -> None:
    assert (migrate.scripts() / "versions").is_dir()
    root = Path(migrate.__file__).parents[2]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, root], check=True
    )
    wheel = next(tmp_path.glob("mailstack-*.whl"))
    target = tmp_path / "installed"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, wheel],
        check=True,
    )
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            "from mailstack.store import migrate; from mailstack.cli import units;"
            "print(migrate.newest(), migrate.scripts(), units.source())",
        ],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(target)},
    ).stdout
    package = target / "mailstack"
    assert found.split() == [schema.HEAD, str(package / "_migrations"), str(package / "_systemd")]


def test_unique_ids_stay_when_their_index_changes(database: Database) -> None:
    maildrops.add_accounts(database, "jo@example.org")
    for number in range(3):
        maildrops.deposit(database, b"Subject: %d\r\n\r\n" % number, "jo@example.org")
    before = list(browse.walk(database, 1))
    for _ in range(2):
        migrate.downgrade(database, lambda text: None, revision="0004")
        migrate.upgrade(database, lambda text: None)
    assert list(browse.walk(database, 1)) == before
    assert not any(step.findings for step in integrity.check(database))


def test_logins_come_and_go_and_leave_the_mail_alone(database: Database) -> None:
    maildrops.add_accounts(database, "jo@example.org")
    maildrops.deposit(database, b"Subject: x\r\n\r\n", "jo@example.org")
    secrets = []
    for _ in range(2):
        with database.reading() as connection:
            secrets.append(logins.scram_secret(connection))
        migrate.downgrade(database, lambda text: None, revision="0001")
        with database.reading() as connection:
            assert not {"login", "secret"} & set(inspect(connection).get_table_names())
            columns = {column["name"] for column in inspect(connection).get_columns("account")}
            assert "scram_keys" not in columns
            assert connection.execute(text("SELECT count(*) FROM entry")).scalar_one() == 1
        migrate.upgrade(database, lambda text: None)
        with database.reading() as connection:
            assert logins.lacking_keys(connection) == 1
    assert len(set(secrets)) == 2  # one of its own for each store that was made


def test_a_filled_store_loses_nothing_on_the_way_up_and_down(database: Database) -> None:
    maildrops.add_accounts(database, "jo@example.org", "kim@example.org")
    for number in range(5):
        content = b"Subject: %d\r\n\r\n%b\r\n" % (number, b"x" * 70 * number)
        maildrops.deposit(database, content, "jo@example.org", "kim@example.org")
    before = _mail(database)
    for revision in ("0001", "head"):
        way = migrate.upgrade if revision == "head" else migrate.downgrade
        assert way(database, lambda text: None, revision=revision)
        assert _mail(database) == before
    assert [step.findings for step in integrity.check(database) if step.findings] == []


def _mail(database: Database) -> list[tuple[object, ...]]:
    """Every message of every maildrop, by columns that all revisions have."""
    wanted = (
        "SELECT e.account_id, e.uid, e.unique_id, e.octets, e.prefix, m.octets, c.octets, a.messages,"
        " a.octets, a.password_hash FROM entry e JOIN message m ON m.id = e.message_id"
        " JOIN content c ON c.id = m.id * 65536 JOIN account a ON a.id = e.account_id ORDER BY 1, 2"
    )
    with database.reading() as connection:
        return [tuple(row) for row in connection.execute(text(wanted))]
