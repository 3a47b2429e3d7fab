"""`mailstack database backup` and `mailstack backup`: an administrator's day, good and bad."""

from __future__ import annotations

import asyncio
import os
import pty
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import delete

from mailstack import settings
from mailstack.cli import show
from mailstack.cli.exits import advised
from mailstack.cli.places import acting_as
from mailstack.store.backups.copy import as_it_is
from mailstack.store.backups.folder import Folder
from mailstack.store.clock import moment, now
from mailstack.store.engine import Database
from mailstack.store.file_locks import FileLocks
from mailstack.store.sqlite import log_path
from mailstack.store.tables import entry
from tests.cli.conftest import CommandLine
from tests.support import maildrops
from tests.support.appliance import Appliance

JO = "jo@example.org"


@pytest.fixture
def filled(mailstack: CommandLine, store: Database) -> CommandLine:
    """A server whose account jo has three messages."""
    mailstack.good("account", "add", JO)
    for number in range(3):
        maildrops.deposit(store, b"Subject: %d\r\n\r\n" % number, JO)
    return mailstack


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backups"


def test_a_backup_is_made_listed_and_verified(filled: CommandLine, folder: Path) -> None:
    made = filled.good("database", "backup", folder).out
    assert re.search(r"has 3 messages of 1 account; 42 B were new", made)
    (listed,) = filled.good("backup", "list", folder, "--json").json
    assert (listed["messages"], listed["accounts"]) == (3, 1)
    assert listed["name"] in filled.good("backup", "list", folder).out
    assert "3 messages read, all is well" in filled.good("backup", "verify", folder).out
    assert filled.good("backup", "verify", folder, "--json").json["findings"] == []
    assert (folder.stat().st_mode & 0o77) == 0, "it has everybody's mail and password hashes in it"


def test_status_tells_the_age_of_the_last_good_backup(filled: CommandLine, folder: Path) -> None:
    assert "last backup           never" in filled("status").out
    filled.good("database", "backup", folder)
    assert "0 minutes ago" in filled("status").out
    assert filled("status", "--json").json["last_verified_backup_at"] is None
    filled.good("backup", "verify", folder)
    assert filled("status", "--json").json["last_verified_backup_at"] is not None


@pytest.mark.parametrize(
    ("minutes", "said"), [(0, "0 minutes"), (119, "119 minutes"), (120, "2 hours"), (2880, "2 days")]
)
def test_an_age_is_told_in_one_unit(minutes: int, said: str) -> None:
    assert show.age(moment(now() - minutes * 60_000_000)).startswith(f"{said} ago, ")


def test_a_lost_store_comes_back(filled: CommandLine, folder: Path) -> None:
    before = filled.good("maildrop", "list", JO, "--json").json
    filled.good("database", "backup", folder)
    path = Path(settings.load(filled.file, {}).state_dir / "mail.db")
    for each in path.parent.glob("mail.db*"):
        each.unlink()
    told = filled.good("backup", "restore", folder, "--yes").out
    assert told.startswith("3 messages restored")
    assert filled.good("maildrop", "list", JO, "--json").json == before
    assert filled.good("database", "check").out == "the store adds up\n"
    filled.good("database", "backup", folder)


@pytest.mark.parametrize(
    "command",
    [
        ("backup", "restore", "--yes"),
        ("database", "upgrade"),
        ("database", "revision"),
        ("doctor", "--offline"),
    ],
    ids=" ".join,
)
def test_a_log_that_was_left_behind_keeps_its_mail(
    filled: CommandLine, store: Database, folder: Path, command: tuple[str, ...]
) -> None:
    filled.good("database", "backup", folder)
    shutil.move(folder, settings.load(filled.file, {}).backup.folder)
    maildrops.deposit(store, b"Subject: since then\r\n\r\n", JO)
    path = Path(str(store.path))
    log = Path(log_path(str(path)))
    octets = log.read_bytes()
    assert octets
    path.rename(path.with_name("aside.db"))
    refused = filled(*command)
    assert "mail.db-wal is still there and may hold mail" in " ".join((refused.out + refused.err).split())
    assert refused.code != 0
    assert (log.read_bytes(), path.exists()) == (octets, False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_a_backup_that_the_owner_of_the_mail_may_not_read_is_none_that_is_damaged(
    filled: CommandLine, store: Database, folder: Path
) -> None:
    filled.good("database", "backup", folder)
    opened = Folder(folder)
    (made,) = opened.backups()
    with acting_as(pwd.getpwnam("nobody")):
        with pytest.raises(PermissionError), advised(folder), as_it_is(opened, made) as copy:
            next(copy.rows("SELECT 1 FROM account"))
        with pytest.raises(PermissionError):
            opened.archives()
        with pytest.raises(PermissionError):
            opened.open()


def test_a_store_that_setup_has_filled_is_to_be_moved_away(filled: CommandLine, folder: Path) -> None:
    filled.good("database", "backup", folder)
    assert "of mail.db its mail.db-wal too" in filled("backup", "restore", folder, "--yes").err


def test_a_whole_restore_wants_the_server_stopped(
    appliance: Appliance, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    appliance.start()
    command = CommandLine(appliance.config, capsys, monkeypatch)
    command.good("database", "backup", folder)
    refused = command("backup", "restore", folder, "--yes")
    assert (refused.code, "is running" in refused.err, "stop it first" in refused.err) == (75, True, True)
    appliance.stop()
    assert "restore one account" in command("backup", "restore", folder, "--yes").err


def test_a_whole_restore_does_not_touch_a_store_in_use(filled: CommandLine, folder: Path) -> None:
    filled.good("database", "backup", folder)
    refused = filled("backup", "restore", folder, "--yes")
    assert refused.code != 0
    assert "restore one account" in refused.err


def test_what_one_account_lacks_comes_back(filled: CommandLine, store: Database, folder: Path) -> None:
    filled.good("database", "backup", folder)
    before = filled.good("maildrop", "list", JO, "--json").json
    filled.good("account", "remove", JO, "--yes")
    one = before[1]["unique_id"]
    told = filled.good("backup", "restore", folder, "--account", JO, "--message", one, "--yes", "--json").json
    assert told == {"restored": 1, "present": 0, "findings": []}
    assert filled.good("backup", "restore", folder, "--account", JO, "--yes").out.startswith("2 messages")
    after = filled.good("maildrop", "list", JO, "--json").json
    assert [each["unique_id"] for each in after] == [each["unique_id"] for each in before]


@pytest.mark.parametrize(
    ("rename", "options"),
    [
        (("account", "rename", JO, "joan@example.org"), (JO,)),
        (("account", "rename", JO, "joan@example.org"), ("joan@example.org", "--from", JO)),
        (("domain", "rename", "example.org", "example.net"), (JO,)),
        (("domain", "rename", "example.org", "example.net"), ("jo@example.net", "--from", JO)),
    ],
    ids=["alias", "named", "old domain", "new domain"],
)
def test_an_account_that_was_renamed_gets_its_mail_back(
    filled: CommandLine, store: Database, folder: Path, rename: tuple[str, ...], options: tuple[str, ...]
) -> None:
    filled.good("database", "backup", folder)
    filled.good(*rename)
    with store.writing() as connection:
        connection.execute(delete(entry).where(entry.c.uid == 2))
    now_called = rename[-1] if "@" in rename[-1] else f"jo@{rename[-1]}"
    refused = filled("backup", "restore", folder, "--account", now_called, "--yes")
    assert (refused.code, "add --from OLD-ADDRESS" in refused.err) == (67, True)
    told = filled.good("backup", "restore", folder, "--account", *options, "--yes", "--json").json
    assert told == {"restored": 1, "present": 2, "findings": []}
    assert len(filled.good("maildrop", "list", now_called, "--json").json) == 3


def test_an_account_that_was_removed_comes_back_as_it_was(
    filled: CommandLine, store: Database, folder: Path
) -> None:
    filled.good("account", "disable", JO)
    filled.good("account", "quota", JO, "5MiB", "--messages", "70")
    before = filled.good("account", "show", JO, "--json").json
    filled.good("database", "backup", folder)
    filled.good("account", "remove", JO, "--yes")
    told = filled.good("backup", "restore", folder, "--account", JO, "--yes")
    assert f"{JO} is an account again, with the password and limits it had" in told.err
    again = filled.good("backup", "restore", folder, "--account", JO, "--yes")
    assert again.out.endswith("; 3 messages had stayed\n")
    assert again.err == ""
    after = filled.good("account", "show", JO, "--json").json
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"created_at", "uid_validity"}
    assert "disabled" in filled.good("account", "show", JO).out


async def test_a_maildrop_in_use_is_left_alone(filled: CommandLine, folder: Path) -> None:
    filled.good("database", "backup", folder)
    locks = FileLocks(settings.load(filled.file, {}).state_dir / "maildrops.lock")
    await locks.hold(1, holder="somebody")
    refused = await asyncio.to_thread(filled, "backup", "restore", folder, "--account", JO, "--yes")
    locks.close()
    assert refused.code == os.EX_TEMPFAIL
    assert "somebody" in refused.err


def test_a_restore_leaves_the_reserve_alone(
    filled: CommandLine, store: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled.good("database", "backup", folder)
    with store.writing() as connection:
        connection.execute(delete(entry))
    monkeypatch.setenv("MAILSTACK_STORE__RESERVE", "1000TiB")
    refused = filled("backup", "restore", folder, "--account", JO, "--yes")
    assert (refused.code, refused.err) == (os.EX_TEMPFAIL, "mailstack: the disk is nearly full\n")


def test_nothing_happens_without_a_yes(filled: CommandLine, folder: Path) -> None:
    filled.good("database", "backup", folder)
    asked = filled("backup", "restore", folder, "--account", JO)
    assert asked.code == os.EX_USAGE
    assert "0 messages (0 B)" in asked.err


@contextmanager
def asked(mailstack: CommandLine, *words: object) -> Iterator[subprocess.Popen[str]]:
    """A command that waits for a person's answer on its standard input."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "mailstack", "--config", str(mailstack.file), *map(str, words)]
    process = subprocess.Popen(
        command, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline().endswith("[y/N]\n")
        yield process
        os.write(master, b"y\n")
        process.wait(30)
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


def test_a_restore_that_waits_for_its_answer_brings_only_what_is_missing_still(
    filled: CommandLine, store: Database, folder: Path
) -> None:
    filled.good("database", "backup", folder)
    before = filled.good("maildrop", "list", JO, "--json").json
    one, two, three = (each["unique_id"] for each in before)
    filled.good("maildrop", "remove", JO, one, two, "--yes")
    restore = ("backup", "restore", folder, "--account", JO)
    with asked(filled, *restore) as waiting:
        filled.good(*restore, "--message", two, "--yes")
        filled.good("maildrop", "remove", JO, three, "--yes")
    out, err = waiting.communicate()
    assert (waiting.returncode, out.startswith("1 message restored")) == (0, True)
    assert out.endswith("; 1 message had stayed\n")
    assert err == "1 message went after the question; say the same again to bring back that, too\n"
    assert [each["unique_id"] for each in filled.good("maildrop", "list", JO, "--json").json] == [one, two]
    filled.good(*restore, "--yes")
    assert filled.good("maildrop", "list", JO, "--json").json == before
    assert filled.good("database", "check").out == "the store adds up\n"


def test_a_message_alone_needs_its_account(filled: CommandLine, folder: Path) -> None:
    filled.good("database", "backup", folder)
    assert "--account" in filled("backup", "restore", folder, "--message", "1.1").err


def test_what_is_no_backup_is_told(mailstack: CommandLine, tmp_path: Path) -> None:
    for command in ("list", "verify", "restore"):
        refused = mailstack("backup", command, tmp_path)
        assert refused.code == os.EX_DATAERR
        assert "no folder of backups" in refused.err


def test_damage_is_told_and_the_code_says_so(filled: CommandLine, store: Database, folder: Path) -> None:
    maildrops.overwrite(store, 1, b"Subject: X\r\n\r\n")
    for _ in range(2):
        made = filled("database", "backup", folder, "--json")
        assert made.code == os.EX_DATAERR
        assert made.json["damaged"] == ["message 1 is damaged: its content is not what was deposited"]
    assert filled("backup", "verify", folder).code == os.EX_DATAERR


def test_old_backups_go(filled: CommandLine, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled.good("database", "backup", folder)
    first = filled.good("backup", "list", folder, "--json").json[0]["name"]
    (folder / first).rename(folder / "20200101T000000Z")
    assert filled.good("database", "backup", folder, "--keep", 1, "--json").json["removed_backups"] == 1
    assert len(filled.good("backup", "list", folder, "--json").json) == 1


def test_a_damaged_backup_is_told_and_left_alone(filled: CommandLine, folder: Path) -> None:
    filled.good("database", "backup", folder)
    first = filled.good("backup", "list", folder, "--json").json[0]["name"]
    (folder / first).rename(folder / "20200101T000000Z")
    (folder / "20200101T000000Z" / "backup.json").unlink()
    told = filled.good("database", "backup", folder, "--keep", 1).err
    assert "20200101T000000Z/backup.json cannot be read; this backup is damaged; it is none of the 1" in told
    listed = filled.good("backup", "list", folder)
    assert "20200101T000000Z" not in listed.out
    assert "20200101T000000Z/backup.json cannot be read" in listed.err
    damaged, whole = filled.good("backup", "list", folder, "--json").json
    assert (damaged["name"], damaged["messages"]) == ("20200101T000000Z", None)
    assert "this backup is damaged" in damaged["problem"]
    assert (whole["messages"], whole["problem"]) == (3, None)
    assert "all is well" in filled.good("backup", "verify", folder).out
    assert filled.good("database", "backup", folder, "--json").json["damaged_backups"] == []
