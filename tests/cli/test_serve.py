"""From `init` to a mail that has been read, by the real command and Python's own clients."""

from __future__ import annotations

import os
import poplib
import re
import signal
import smtplib
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailstack.store.engine import Database
from tests.cli.conftest import CommandLine
from tests.support.resolver import free_port

SMTP_PORT, POP3_PORT, POP3S_PORT = 2525, 1110, 1995  # as `init` writes them, on an address of our own


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> str:
    """A loopback address that nobody else uses; the settings listen there."""
    number = os.getpid()
    host = f"127.{40 + number // 65536 % 16}.{number // 256 % 256}.{number % 256}"
    monkeypatch.setenv("MAILSTACK_SMTP__LISTEN", f"{host}:{SMTP_PORT}")
    monkeypatch.setenv("MAILSTACK_POP3__LISTEN", f"{host}:{POP3_PORT}")
    monkeypatch.setenv("MAILSTACK_POP3__TLS_LISTEN", f"{host}:{POP3S_PORT}")
    return host


@pytest.fixture
def served(mailstack: CommandLine, address: str, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`mailstack serve` that has said `ready`."""
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mailstack", "--config", mailstack.file, "serve"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n", (tmp_path / "log").read_text()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_from_init_to_a_mail_that_was_read(
    mailstack: CommandLine, served: subprocess.Popen[str], address: str
) -> None:
    mailstack.good("account", "add", "jo", "--password-stdin", stdin=b"secret")
    trusting = ssl.create_default_context(cafile=str(mailstack.file.parent / "tls" / "certificate.pem"))
    trusting.check_hostname = False  # the address is one that no certificate names
    with smtplib.SMTP(address, SMTP_PORT) as smtp:
        smtp.starttls(context=trusting)
        smtp.sendmail("eve@example.net", ["jo@example.org"], "Subject: hello\r\n\r\nIt works.\r\n")
    pop3 = poplib.POP3_SSL(address, POP3S_PORT, context=trusting)
    pop3.user("jo")
    pop3.pass_("secret")
    lines = pop3.retr(1)[1]
    listed = mailstack.good("maildrop", "list", "jo", "--json").json
    assert lines[-3:] == [b"Subject: hello", b"", b"It works."]
    assert listed[0]["octets"] == sum(len(line) + 2 for line in lines)
    # The lock of the session that is open keeps the account.
    assert mailstack("account", "remove", "jo", "--yes").code == 75
    pop3.quit()
    assert mailstack.good("database", "check").out == "the store adds up\n"
    mailstack.good("account", "remove", "jo", "--yes")


def test_status_sees_it_and_sigterm_ends_it(mailstack: CommandLine, served: subprocess.Popen[str]) -> None:
    found = mailstack.good("status", "--json").json
    assert [(each["role"], each["answers"]) for each in found["listeners"]] == [
        ("smtp", True),
        ("pop3", True),
        ("pop3s", True),
    ]
    served.send_signal(signal.SIGTERM)
    assert served.wait(20) == 0
    assert mailstack("status").code == 69


def test_status_tells_who_serves_where_the_database_tells_nothing(
    mailstack: CommandLine, served: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(code: int, trouble: str) -> None:
        found = mailstack("status", "--json")
        assert found.code == code
        assert trouble in found.json["database_trouble"]
        counts = ("domains", "accounts", "messages", "octets", "last_backup_at")
        assert [found.json[name] for name in counts] == [None] * len(counts)
        assert [each["answers"] for each in found.json["listeners"]] == [True] * 3
        assert [each["pid"] for each in found.json["processes"]] == [served.pid]
        shown = mailstack("status")
        assert shown.code == code
        assert shown.out.startswith(f"WARNING: {found.json['database_trouble']}\n")
        assert re.search(r"^size +unknown$", shown.out, re.MULTILINE)
        assert re.search(r"^last backup +unknown$", shown.out, re.MULTILINE)
        assert f"process {served.pid}: serves smtp, pop3, pop3s since " in shown.out

    monkeypatch.setenv("MAILSTACK_DATABASE_URL", f"postgresql://mail@127.0.0.1:{free_port()}/mail")
    told(os.EX_UNAVAILABLE, "the database cannot be reached: ")
    monkeypatch.delenv("MAILSTACK_DATABASE_URL")
    database = Database(mailstack.url)
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    database.dispose()
    told(os.EX_CONFIG, "run: mailstack database upgrade")
    assert mailstack("status", "--json").json["revision"] == "0000"


def test_a_port_in_use_is_said_in_a_sentence(
    mailstack: CommandLine, served: subprocess.Popen[str], address: str
) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "mailstack", "--config", mailstack.file, "serve"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refused.returncode != 0
    assert refused.stdout == ""
    assert f"{address}:{SMTP_PORT}" in refused.stderr
    assert "Traceback" not in refused.stderr
