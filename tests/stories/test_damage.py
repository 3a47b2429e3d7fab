"""A disk that forgets, and one that may not be written: what is whole is served, the rest is named."""

from __future__ import annotations

import poplib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stories.load import message
from tests.stories.test_trouble import on_small_disk, small_disk
from tests.support.appliance import DOMAIN, Appliance, copy_template, retrieved, wait_until

__all__ = ["on_small_disk"]


@pytest.fixture
def on_failing_disk(tmp_path: Path, sqlite_template: Path) -> Iterator[Appliance]:
    """An appliance on a disk of its own that the kernel lets nobody write to once it has failed."""
    with (
        small_disk(tmp_path, 250, journal=True, options="loop,errors=remount-ro") as disk,
        Appliance(disk) as made,
    ):
        copy_template(sqlite_template, made)
        made.add_accounts("anna", "ben")
        yield made


WHY = "the database"


def spoil(appliance: Appliance, marker: bytes, by: bytes) -> None:
    """Overwrite the one place in the database that holds these octets."""
    path = Path(appliance.state_dir / "mail.db")
    octets = path.read_bytes()
    assert octets.count(marker) == 1
    with path.open("r+b") as file:
        file.seek(octets.index(marker))
        file.write(by)


@pytest.mark.parametrize("lost", [b"#", bytes(8192)], ids=["an octet", "a page"])
def test_a_damaged_message_is_named_and_the_others_are_served(appliance: Appliance, lost: bytes) -> None:
    appliance.start()
    for name in ("first", "second", "third"):
        # In the middle: where a message begins, a page of the database belongs to others, too.
        content = message(name, 100_000) + name.encode() * 9 + b"\r\n" + message(name, 100_000)
        assert appliance.send(content, "anna")[0] == 250
    appliance.stop()
    spoil(appliance, b"second" * 9, lost)
    appliance.start()

    session = appliance.pop3("anna")
    assert b"first" * 9 in retrieved(session, 1)
    with pytest.raises(poplib.error_proto, match=r"-ERR \[SYS/PERM\].*damaged"):
        session.retr(2)
    assert b"third" * 9 in retrieved(session, 3)
    assert session.stat()[0] == 3
    session.quit()
    (found,) = appliance.findings()
    assert found.startswith("message 2 is damaged")


def test_a_disk_that_may_not_be_written_stops_the_start_with_a_reason(on_small_disk: Appliance) -> None:
    appliance = on_small_disk
    appliance.start()
    assert appliance.send(message("kept", 1000), "anna")[0] == 250
    appliance.stop()
    log = appliance.log
    remounted = ["mount", "-o", "remount,ro", str(appliance.folder)]
    subprocess.run(remounted, check=True)
    try:
        appliance.log = log.parent.parent / "said"
        process = appliance.run()
        assert process.wait() in (69, 74, 75, 77, 78)
        assert "read-only" in appliance.log.read_text().lower()
        appliance.kill()
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(appliance.folder)], check=True)
        appliance.log = log
    appliance.start()
    assert appliance.pop3("anna").stat()[0] == 1


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_mail_gets_out_of_a_disk_that_may_not_be_written_without_a_server(
    on_small_disk: Appliance, tmp_path: Path, killed: bool
) -> None:
    appliance = on_small_disk
    appliance.start()
    assert appliance.send(message("kept", 1000), "anna")[0] == 250
    (appliance.kill if killed else appliance.stop)()
    subprocess.run(["mount", "-o", "remount,ro", str(appliance.folder)], check=True)
    log, appliance.log = appliance.log, tmp_path / "said"
    try:
        assert b"anna@" in appliance.command("account", "list")
        anna = f"anna@{DOMAIN}"
        assert appliance.command("maildrop", "list", anna, "--json").count(b"unique_id") == 1
        assert b"1 message " in appliance.command("maildrop", "export", anna, str(tmp_path / "out"))
        assert b"1 message " in appliance.command("database", "backup", str(tmp_path / "backups"))
        assert b"all is well" in appliance.command("backup", "verify", str(tmp_path / "backups"))
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(appliance.folder)], check=True)
        appliance.log = log
    appliance.start()
    assert appliance.pop3("anna").stat()[0] == 1


def test_a_disk_that_fails_meanwhile_is_read_and_backed_up(
    on_failing_disk: Appliance, tmp_path: Path
) -> None:
    appliance = on_failing_disk
    appliance.log = tmp_path / "log"  # where it can still be written
    appliance.start()
    assert appliance.send(message("kept", 10_000), "anna")[0] == 250
    backups = tmp_path / "backups"
    appliance.command("database", "backup", str(backups))
    assert appliance.send(message("new", 1000), "anna")[0] == 250
    device = subprocess.run(
        ["findmnt", "-no", "SOURCE", appliance.folder], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert device.startswith("/dev/loop")
    Path(f"/sys/fs/ext4/{Path(device).name}/trigger_fs_error").write_text("a test")

    assert appliance.send(message("lost", 1000), "anna") == (
        451,
        b"4.3.0 the store does not answer, try again",
    )
    session = appliance.pop3("anna")
    assert retrieved(session, 1).endswith(message("kept", 10_000))
    session.dele(1)
    with pytest.raises(poplib.error_proto, match=r"-ERR \[SYS/TEMP\]"):
        session.quit()
    session.close()
    session = appliance.pop3("anna")
    assert session.stat()[0] == 2
    session.quit()
    wait_until(lambda: "trouble=" in appliance.said(), what="the session is told of")
    told = appliance.said().splitlines()
    assert [each for each in told if "event=mail " in each and f'reason="{WHY}' in each]
    assert [each for each in told if "event=pop3.session " in each and f'trouble="{WHY}' in each]
    said = appliance.command("database", "backup", str(backups))
    assert b"2 messages of 2 accounts" in said
    assert b"all is well" in appliance.command("backup", "verify", str(backups))
    appliance.kill()
