"""`mailstack session`, on a server of two processes."""

from __future__ import annotations

import poplib
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailstack import settings
from tests.cli.conftest import CommandLine
from tests.cli.test_serve import POP3_PORT, POP3S_PORT, address

__all__ = ["address"]


@pytest.fixture
def served(mailstack: CommandLine, address: str, tmp_path: Path) -> Iterator[Path]:
    """Two workers that accept; where they write their log."""
    log = tmp_path / "log"
    command = [sys.executable, "-m", "mailstack", "--config", mailstack.file]
    with log.open("w") as written:
        process = subprocess.Popen(
            [*command, "serve", "pop3", "--workers", "2"],
            stdout=subprocess.PIPE,
            stderr=written,
            text=True,
        )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n", log.read_text()
        yield log
    finally:
        process.terminate()
        assert process.wait(30) == 0
        process.stdout.close()


def log_in(address: str, name: str) -> poplib.POP3:
    pop3 = poplib.POP3(address, POP3_PORT, timeout=20)
    try:
        pop3.user(name)
        pop3.pass_("secret")
    except poplib.error_proto:
        pop3.close()
        raise
    return pop3


def test_sessions_of_all_processes_are_listed_and_kicked(
    mailstack: CommandLine, served: Path, address: str
) -> None:
    for name in ("ann", "bob"):
        mailstack.good("account", "add", name, "--password-stdin", stdin=b"secret")
    assert mailstack.good("session", "list").err == "no session is open\n"
    assert mailstack("session", "kick", "ann").code == 67
    ann, bob = log_in(address, "ann"), log_in(address, "bob")
    trusting = ssl.create_default_context(cafile=str(mailstack.file.parent / "tls" / "certificate.pem"))
    trusting.check_hostname = False
    # So many that no process gets them all.
    strangers = [poplib.POP3_SSL(address, POP3S_PORT, context=trusting) for _ in range(20)]
    listed = mailstack.good("session", "list", "--json").json
    assert {each["account"] for each in listed} == {"ann@example.org", "bob@example.org", None}
    assert len(listed) == 22
    assert len({each["pid"] for each in listed}) == 2
    assert {each["tls"] for each in listed if each["account"] is None} == {"TLSv1.3"}
    processes = mailstack("status", "--json").json["processes"]
    assert sum(each["pop3_sessions"] for each in processes) == 22
    assert "bob@example.org" in mailstack.good("session", "list").out

    with pytest.raises(poplib.error_proto, match=r"\[IN-USE\] held since .* from 127\."):
        log_in(address, "ann")
    assert mailstack.good("session", "kick", "Ann@example.org").out == "1 session ended\n"
    log_in(address, "ann").quit()  # its lock is free at once
    with pytest.raises((poplib.error_proto, OSError)):
        ann.noop()
    ann.close()
    (session,) = [each["session"] for each in listed if each["account"] == "bob@example.org"]
    assert mailstack.good("session", "kick", session, "--json").json == {"kicked": 1}
    with pytest.raises((poplib.error_proto, OSError)):
        bob.noop()
    bob.close()
    for stranger in strangers:
        stranger.quit()
    time.sleep(0.1)
    assert served.read_text().count("ended=kicked") == 2


def test_only_the_owner_may_ask(mailstack: CommandLine, served: Path) -> None:
    folder = settings.load(mailstack.file, {}).control_dir
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()] == [0o600, 0o600]


def test_without_a_service_it_says_so(mailstack: CommandLine) -> None:
    outcome = mailstack("session", "list")
    assert outcome.code == 69
    assert "no service is running" in outcome.err
