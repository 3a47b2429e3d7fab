"""A full disk, a locked or absent database: temporary replies, nothing lost, and it goes on by itself."""

from __future__ import annotations

import os
import poplib
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from tests.clients.test_unique_ids import unique_ids
from tests.stories.load import message
from tests.support import reference
from tests.support.appliance import DOMAIN, Appliance, copy_template, retrieved, send, wait_until

MEGABYTE = 1024 * 1024


@contextmanager
def small_disk(
    folder: Path, megabytes: int, *, journal: bool = False, options: str = "loop"
) -> Iterator[Path]:
    """A file system of its own, without the share that is kept for root and would hide a full disk."""
    if os.getuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("only root can mount a small disk, made by e2fsprogs")
    image, mounted = folder / "image", folder / "disk"
    with image.open("wb") as file:
        file.truncate(megabytes * MEGABYTE)
    subprocess.run(
        ["mkfs.ext4", "-q", "-m", "0", "-O", "has_journal" if journal else "^has_journal", image], check=True
    )
    mounted.mkdir()
    done = subprocess.run(["mount", "-o", options, image, mounted], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no loop device here: {done.stderr.strip()}")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", mounted], check=True)


@pytest.fixture
def on_small_disk(tmp_path: Path, sqlite_template: Path) -> Iterator[Appliance]:
    """An appliance on a disk of 250 MB, of which 64 MiB are the reserve."""
    with small_disk(tmp_path, 250) as disk, Appliance(disk) as made:
        copy_template(sqlite_template, made)
        made.add_accounts("anna", "ben")
        yield made


def fill(appliance: Appliance, *, leave: int) -> Path:
    """Take the disk's space, but for so many octets."""
    filler = appliance.folder / "filler"
    free = os.statvfs(appliance.folder)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - max(leave, MEGABYTE))
    if not leave:
        # The file system's own notes took some of it; nobody can tell how much but by trying.
        with suppress(OSError), filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    return filler


def test_a_disk_that_fills_up(on_small_disk: Appliance) -> None:
    appliance = on_small_disk
    appliance.start()
    kept = message("kept", 10_000)
    for _ in range(3):
        assert appliance.send(kept, "anna")[0] == 250

    # Below the reserve no mail is taken; reading and deleting go on.
    filler = fill(appliance, leave=50 * MEGABYTE)
    wait_until(lambda: appliance.send(kept, "anna")[0] != 250, what="the server notices its full disk")
    assert appliance.send(kept, "anna") == (452, b"4.3.1 no space left, try again later")
    session = appliance.pop3("anna")
    count, _ = session.stat()
    assert count >= 3
    assert retrieved(session, 1).endswith(kept)
    session.dele(1)
    session.quit()
    session = appliance.pop3("anna")
    assert session.stat()[0] == count - 1
    session.quit()

    filler.unlink()
    wait_until(lambda: appliance.send(kept, "ben")[0] == 250, what="the server notices the room")
    assert retrieved(appliance.pop3("ben"), 1).endswith(kept)
    assert appliance.findings() == []


def test_many_senders_do_not_reach_the_reserve(on_small_disk: Appliance) -> None:
    appliance = on_small_disk
    appliance.start()
    fill(appliance, leave=64 * MEGABYTE + 40 * MEGABYTE)
    big = message("big", 2 * MEGABYTE)

    with appliance.smtp() as connection:
        replies = [send(connection, big, "anna")[0] for _ in range(30)]

    accepted = replies.count(250)
    assert accepted >= 5
    assert replies == [250] * accepted + [452] * (30 - accepted)
    # What is left is enough to delete, and deleting is enough to go on.
    session = appliance.pop3("anna")
    assert session.stat()[0] == accepted
    for number in range(1, accepted + 1):
        session.dele(number)
    session.quit()
    wait_until(lambda: appliance.send(message("small", 1000), "anna")[0] == 250, what="there is room again")
    assert appliance.findings() == []


def test_a_disk_that_is_full_in_the_middle(on_small_disk: Appliance) -> None:
    appliance = on_small_disk
    appliance.start()
    first = message("first", 1000)
    data = reference.stuffed(message("big", 10 * MEGABYTE))
    with appliance.smtp() as connection:
        connection.mail("sender@example.net")
        connection.rcpt(f"anna@{DOMAIN}")
        connection.docmd("DATA")
        connection.sock.sendall(data[:-3])
        # While the message was on its way there was room, and the server has just looked.
        assert appliance.send(first, "anna")[0] == 250
        filler = fill(appliance, leave=2 * MEGABYTE)
        connection.sock.sendall(data[-3:])
        code, text = connection.getreply()
    assert (code, text[:5]) == (452, b"4.3.1")
    # Not even the spool has room for this one, more of which than memory takes is in a file.
    assert appliance.send(message("bigger", 45 * MEGABYTE), "anna", "ben")[0] == 452
    session = appliance.pop3("anna")
    assert session.stat()[0] == 1
    session.quit()

    filler.unlink()
    wait_until(lambda: appliance.send(first, "anna")[0] == 250, what="there is room again")
    assert appliance.pop3("anna").stat()[0] == 2
    appliance.stop()
    assert appliance.findings() == []


def test_a_disk_without_an_octet_left(on_small_disk: Appliance) -> None:
    appliance = on_small_disk
    appliance.start()
    for _ in range(3):
        assert appliance.send(message("kept", 100_000), "anna")[0] == 250
    appliance.kill()
    fill(appliance, leave=0)

    appliance.start()  # what a full disk needs most is somebody who deletes
    assert appliance.send(message("more", 1000), "anna")[0] == 452
    session = appliance.pop3("anna")
    assert session.stat()[0] == 3
    assert retrieved(session, 3).endswith(message("kept", 100_000))


def test_another_process_holds_the_write_lock(appliance: Appliance) -> None:
    appliance.start()
    first = message("first", 1000)
    assert appliance.send(first, "anna")[0] == 250

    with closing(sqlite3.connect(appliance.state_dir / "mail.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor() as pool:  # this one waits as long as the server is patient
            refused = pool.submit(appliance.send, message("second", 1000), "anna")
            session = appliance.pop3("anna")
            assert session.stat()[0] == 1
            assert retrieved(session, 1).endswith(first)
            session.quit()
            assert refused.result() == (451, b"4.3.0 the store does not answer, try again")
        other.execute("ROLLBACK")

    assert appliance.send(message("third", 1000), "anna")[0] == 250
    assert appliance.pop3("anna").stat()[0] == 2


def test_the_database_server_goes_away_and_comes_back(
    appliance_on_postgresql: Appliance, postgresql_server: str
) -> None:
    appliance = appliance_on_postgresql
    appliance.start()
    first = message("first", 1000)
    assert appliance.send(first, "anna")[0] == 250
    session = appliance.pop3("anna")
    before = unique_ids(session)
    name = appliance.url.partition("?")[0].rpartition("/")[2]

    with psycopg.connect(postgresql_server, autocommit=True) as superuser:
        superuser.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        superuser.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        code, text = appliance.send(message("second", 1000), "anna")
        assert (code, text[:5]) == (451, b"4.3.0")
        with pytest.raises(poplib.error_proto, match=r"-ERR \[SYS/TEMP\]"):
            session.retr(1)
        with pytest.raises(poplib.error_proto, match=r"-ERR \[SYS/TEMP\]"):
            appliance.pop3("ben")
        superuser.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')

    session.close()
    assert appliance.send(message("third", 1000), "anna")[0] == 250
    session = appliance.pop3("anna")
    after = unique_ids(session)
    assert len(after) == 2
    assert after[1] == before[1]
    assert retrieved(session, 1).endswith(first)
    assert appliance.findings() == []
