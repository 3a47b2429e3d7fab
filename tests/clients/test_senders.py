"""Every sending program, in plain text and under TLS: what it sends is what we keep."""

from __future__ import annotations

import asyncio
import re
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import aiosmtplib
import pytest

from tests.clients import senders
from tests.clients.test_sending import needs_postfix
from tests.support import exim, postfix, reference
from tests.support.appliance import DOMAIN, HOSTNAME, PASSWORD, SMTP_PORT, Appliance, retrieved
from tests.support.postgresql import temporary_directory
from tests.support.samples import Sample

pytestmark = pytest.mark.clients

SENDER = "sender@example.net"
CONTENT = (
    b"From: Eve <eve@example.net>\r\nSubject: x\r\n\r\n.\r\n..dots\r\nFrom here\r\n"
    + b"y" * 900
    + b"\r\n\xff\r\n"
)

Sends = Callable[[Appliance, str, Path, bool], None]


def swaks(appliance: Appliance, recipient: str, folder: Path, tls: bool) -> None:
    run(
        ["swaks", "--server", appliance.host, "--port", str(SMTP_PORT), "--from", SENDER, "--to", recipient,
         "--data", "-", "--no-data-fixup", "--suppress-data", *(["--tls"] if tls else [])],
        reference.stuffed(CONTENT),
    )  # fmt: skip


def msmtp(appliance: Appliance, recipient: str, folder: Path, tls: bool) -> None:
    (folder / "rc").write_text(
        f"""
account default
host {appliance.host}
port {SMTP_PORT}
tls {"on" if tls else "off"}
tls_starttls on
tls_trust_file {appliance.certificate}
tls_host_override {HOSTNAME}
"""
    )
    (folder / "rc").chmod(0o600)
    run(["msmtp", "--file", str(folder / "rc"), "--from", SENDER, recipient], CONTENT.replace(b"\r\n", b"\n"))


def curl(appliance: Appliance, recipient: str, folder: Path, tls: bool) -> None:
    place = f"{HOSTNAME}:{SMTP_PORT}"
    run(
        ["curl", "--silent", "--show-error", "--url", f"smtp://{place}/client.example.net",
         "--resolve", f"{place}:{appliance.host}",
         "--mail-from", SENDER, "--mail-rcpt", recipient, "--upload-file", "-", "--cacert",
         str(appliance.certificate), *(["--ssl-reqd"] if tls else [])],
        CONTENT,
    )  # fmt: skip


def by_smtplib(appliance: Appliance, recipient: str, folder: Path, tls: bool) -> None:
    with appliance.smtp() as connection:
        if tls:
            connection.starttls(context=appliance.tls_context())
        connection.sendmail(SENDER, [recipient], CONTENT, mail_options=["BODY=8BITMIME"])


def by_aiosmtplib(appliance: Appliance, recipient: str, folder: Path, tls: bool) -> None:
    asyncio.run(
        aiosmtplib.send(
            CONTENT,
            sender=SENDER,
            recipients=[recipient],
            hostname=appliance.host,
            port=SMTP_PORT,
            start_tls=tls,
            tls_context=appliance.tls_context() if tls else None,
        )
    )


PROGRAMS = {"swaks": swaks, "msmtp": msmtp, "curl": curl, "smtplib": by_smtplib, "aiosmtplib": by_aiosmtplib}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program(appliance: Appliance, tmp_path: Path, name: str, tls: bool) -> None:
    if name in ("swaks", "msmtp", "curl") and shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    appliance.start()
    PROGRAMS[name](appliance, f"anna@{DOMAIN}", tmp_path, tls)
    arrived(appliance, tls=tls)


@pytest.fixture(scope="module")
def exim_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="exim") as folder:
        if reason := exim.unpacked(Path(folder)):
            pytest.skip(reason)
        yield Path(folder)


def test_a_program_that_knows_tls_1_2_alone(appliance: Appliance) -> None:
    """There the server's word ends the handshake (RFC 5246 §7.3); behind STLS the client speaks first."""
    appliance.start()
    context = appliance.tls_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with appliance.smtp() as connection:
        connection.starttls(context=context)
        connection.sendmail(SENDER, [f"anna@{DOMAIN}"], CONTENT, mail_options=["BODY=8BITMIME"])
    session = appliance.pop3_plain()
    session.stls(context)
    session.user("anna")
    session.pass_(PASSWORD)
    assert b"(TLSv1.2 " in retrieved(session, 1)
    session.quit()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_exim(appliance: Appliance, exim_folder: Path, tls: bool) -> None:
    appliance.start()
    appliance.folder.chmod(0o755)
    certificate = exim_folder / "certificate.pem"
    shutil.copy(appliance.certificate, certificate)
    exim.send(
        exim_folder,
        CONTENT.replace(b"\r\n", b"\n"),
        SENDER,
        f"anna@{DOMAIN}",
        server=(appliance.host, SMTP_PORT),
        tls=certificate if tls else None,
    )
    arrived(appliance, tls=tls)


@needs_postfix
def test_the_queue_of_postfix_ends_empty_though_we_are_killed_under_it(appliance: Appliance) -> None:
    appliance.start()
    own, relay = (appliance.host, SMTP_PORT + 1), (appliance.host, SMTP_PORT)
    more = "maximal_backoff_time = 1s\nsmtp_destination_concurrency_failed_cohort_limit = 0"
    samples = [
        Sample(str(n), b"Message-ID: <%d@example.net>\r\n\r\n%s\r\n" % (n, b"z" * 5000)) for n in range(150)
    ]
    with temporary_directory() as folder, postfix.running(folder, listen=own, relay=relay, more=more) as conf:
        for start in range(0, len(samples), 50):
            senders.by_smtplib(samples[start : start + 50], "anna", own)
            appliance.kill()
            time.sleep(0.5)
            appliance.start()
        postfix.wait_for_empty_queue(conf, seconds=100)
    session = appliance.pop3("anna")
    found = [retrieved(session, number) for number in range(1, session.stat()[0] + 1)]
    marks = {re.search(rb"Message-ID: <(\d+)@", message)[1] for message in found}  # type: ignore[index]
    assert len(marks) == len(samples)
    assert len(found) < len(samples) + 60  # a 250 that was not read any more is sent again (RFC 5321 §6.1)
    assert appliance.findings() == []


def test_smtputf8(appliance: Appliance) -> None:
    appliance.add_accounts("jürgen")
    appliance.start()
    with appliance.smtp() as connection:
        connection.starttls(context=appliance.tls_context())
        content = "Subject: Grüße\r\n\r\nx\r\n".encode()
        recipient = f"ju\N{COMBINING DIAERESIS}rgen@{DOMAIN}"  # the other way to write it
        connection.sendmail(
            "grün@bücher.example", [recipient], content, mail_options=["SMTPUTF8", "BODY=8BITMIME"]
        )
    session = appliance.pop3("jürgen", utf8=True)
    message = retrieved(session, 1)
    session.quit()
    assert message.startswith("Return-Path: <grün@bücher.example>\r\n".encode())
    assert b"with UTF8SMTPS" in message
    assert message.endswith(b"\r\n" + content)
    surrogate = retrieved(appliance.pop3("jürgen"), 1)
    assert surrogate.isascii()
    assert b"\r\nSubject: =?utf-8?b?R3LDvMOfZQ==?=\r\n" in surrogate
    assert message.endswith(content)


def arrived(appliance: Appliance, *, tls: bool) -> None:
    """The one message is there, below the trace fields and what a relay has put on top."""
    session = appliance.pop3("anna")
    assert session.stat()[0] == 1
    message = retrieved(session, 1)
    assert message.startswith(b"Return-Path: <sender@example.net>\r\nDelivered-To: anna@")
    assert message.endswith(CONTENT.partition(b"\r\n\r\n")[2])
    assert b"Subject: x\r\n" in message
    assert bool(re.search(rb"\r\nReceived: from [^;]+ with ESMTPS\s+\(TLSv1\.3 ", message)) is tls


def run(command: list[str], given: bytes) -> None:
    """A program that has to succeed."""
    done = subprocess.run(command, input=given, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
