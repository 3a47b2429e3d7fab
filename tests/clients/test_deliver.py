"""Fetching programs hand what they fetch to `mailstack deliver`, beside the server that runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import reference
from tests.support.appliance import DOMAIN, HOSTNAME, PASSWORD, POP3_PORT, POP3S_PORT, Appliance, retrieved

pytestmark = pytest.mark.clients

PAGE = (Path(__file__).parents[2] / "docs" / "accounts.md").read_text()

COUNT = 5


def of_page(pattern: str, appliance: Appliance, *, quoted: bool = False) -> str:
    """What an administrator copies from the page on accounts, for this checkout and its server."""
    found = re.search(pattern, PAGE, re.MULTILINE)
    assert found is not None
    program, *arguments = delivering(appliance)
    words = ", ".join(f'"{each}"' for each in arguments) if quoted else " ".join(arguments)
    text = found[1].replace('"deliver"' if quoted else "deliver", words, 1)
    return text.replace("/usr/bin/mailstack", program).replace("jo@example.org", f"ben@{DOMAIN}")


def delivering(appliance: Appliance, *arguments: str) -> list[str]:
    """The command line of the delivery agent."""
    return [sys.executable, "-m", "mailstack", "--config", str(appliance.config), "deliver", *arguments]


def test_getmail(appliance: Appliance, tmp_path: Path) -> None:
    fill(appliance)
    destination = of_page(r"^```ini\n(\[destination\](?:.|\n)+?)^```", appliance, quoted=True)
    (tmp_path / "rc").write_text(
        f"""
[retriever]
type = SimplePOP3SSLRetriever
server = {appliance.host}
port = {POP3S_PORT}
username = anna
password = {PASSWORD}
ca_certs = {appliance.certificate}
ssl_cert_hostname = {HOSTNAME}
{destination}
[options]
delete = true
"""
    )
    (tmp_path / "rc").chmod(0o600)
    getmail = Path(sys.executable).parent / "getmail"
    done = subprocess.run(
        [getmail, "--getmaildir", tmp_path, "--rcfile", "rc"], capture_output=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    moved(appliance)


@pytest.mark.skipif(shutil.which("fetchmail") is None, reason="fetchmail is not installed")
def test_fetchmail(appliance: Appliance, tmp_path: Path) -> None:
    fill(appliance)
    mda = of_page(r'^(mda ".+")$', appliance)
    (tmp_path / "rc").write_text(
        f"""
set no bouncemail
set invisible
poll {appliance.host} protocol pop3 service {POP3_PORT} timeout 60
  user "anna" password "{PASSWORD}" sslproto "" no rewrite pass8bits fetchall no keep {mda}
"""
    )
    (tmp_path / "rc").chmod(0o600)
    command = ["fetchmail", "--fetchmailrc", tmp_path / "rc", "--pidfile", tmp_path / "pid"]
    as_root = {**os.environ, "FETCHMAILUSER": "root"}
    done = subprocess.run(command, capture_output=True, timeout=100, env=as_root)
    assert done.returncode == 0, done.stdout + done.stderr
    moved(appliance)


@pytest.mark.parametrize("running", [True, False])
def test_with_and_without_a_server_nothing_is_lost(any_appliance: Appliance, running: bool) -> None:
    if running:
        any_appliance.start()
    command = delivering(any_appliance, "--sender", "eve@example.net", f"anna@{DOMAIN}")
    agents = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    for number, agent in enumerate(agents):
        _, said = agent.communicate(b"Subject: %d\n\nbody\n" % number, timeout=60)
        assert agent.returncode == 0, said
    if not running:
        any_appliance.start()
    session = any_appliance.pop3("anna")
    assert session.stat()[0] == 3
    subjects = {reference.below_trace(retrieved(session, number))[2] for number in (1, 2, 3)}
    assert subjects == {b"Subject: %d\r\n\r\nbody\r\n" % number for number in range(3)}


def fill(appliance: Appliance) -> None:
    appliance.start()
    for number in range(COUNT):
        code, _ = appliance.send(b"Subject: %d\r\n\r\n.\r\nbody\r\n" % number, "anna")
        assert code == 250


def moved(appliance: Appliance) -> None:
    """All of anna's mail is ben's now, and hers no more."""
    session = appliance.pop3("ben")
    assert session.stat()[0] == COUNT
    for number in range(COUNT):
        message = retrieved(session, number + 1)
        assert message.startswith(b"Return-Path: <sender@example.net>\r\nDelivered-To: ben@")
        assert message.count(b"Return-Path:") == 1
        assert b"Subject: %d\r\n" % number in message
        assert message.endswith(b"\r\n\r\n.\r\nbody\r\n")
    assert appliance.pop3("anna").stat()[0] == 0
