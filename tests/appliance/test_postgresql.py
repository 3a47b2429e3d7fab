"""The package beside a PostgreSQL of the same machine: by its unix socket, and by TCP with a password."""

from __future__ import annotations

import pytest

from tests.appliance.box import Box
from tests.appliance.clients import ADDRESS, PASSWORD, send, subjects, unique_ids
from tests.appliance.conftest import MakeBox
from tests.appliance.package import package
from tests.support.appliance import wait_until

pytestmark = [pytest.mark.appliance, pytest.mark.long, pytest.mark.timeout(900)]

SETTINGS = """\
hostname = "mail.example.org"
default_domain = "example.org"
database_url = "postgresql:///mailstack"
[smtp]
listen = ["[::]:25"]
[pop3]
listen = ["[::]:110"]
tls_listen = ["[::]:995"]
"""

SECRET = "s3cret"


def as_postgres(box: Box, *command: str) -> str:
    return box.good("runuser", "-u", "postgres", "--", *command)


def let_out(box: Box) -> None:
    """As docs/systemd.md has it."""
    for unit in ("mailstack@", "mailstack-"):
        folder = f"/etc/systemd/system/{unit}.service.d"
        box.good("mkdir", "-p", folder)
        box.good("ln", "-s", "/usr/lib/mailstack/network.conf", f"{folder}/50-network.conf")
    box.good("systemctl", "daemon-reload")


def test_mail_in_postgresql(fresh: MakeBox) -> None:
    box = fresh("bookworm", "postgresql")
    box.copy_in(package(), "/root/mailstack.deb")
    box.good("dpkg", "--install", "/root/mailstack.deb", seconds=300)
    as_postgres(box, "createuser", "mailstack")
    as_postgres(box, "createdb", "--owner", "mailstack", "mailstack")
    settings = box.root / "etc/mailstack/mailstack.toml"
    settings.write_text(SETTINGS)
    said = box.good("mailstack", "setup", ADDRESS, "--offline", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert "the server is started" in said

    send(box, "by the unix socket")
    assert subjects(box) == ["by the unix socket"]
    before = unique_ids(box)

    as_postgres(box, "psql", "--command", f"ALTER ROLE mailstack PASSWORD '{SECRET}'")
    credential = box.root / "etc/mailstack/credentials/database_url"
    credential.write_text(f"postgresql://mailstack:{SECRET}@127.0.0.1/mailstack\n")
    credential.chmod(0o600)
    let_out(box)
    box.good("systemctl", "restart", "mailstack.target")
    send(box, "by TCP")
    assert subjects(box) == ["by the unix socket", "by TCP"]
    assert unique_ids(box)[:1] == before
    hosts = as_postgres(
        box, "psql", "-Atc", "SELECT DISTINCT client_addr FROM pg_stat_activity WHERE usename = 'mailstack'"
    )
    assert hosts.split() == ["127.0.0.1"]
    assert SECRET not in box.good("mailstack", "settings", "show")
    box.good("mailstack", "status")

    # What was promised for the time when it is away: later, not never; and it is not killed for it.
    process = box.unit("mailstack@smtp", "MainPID")
    box.good("systemctl", "stop", "postgresql@15-main")
    told = box.client("swaks", "--server", "127.0.0.1", "--to", ADDRESS, "--from", "eve@example.net")
    assert b"451 4." in told.stdout
    box.good("systemctl", "start", "postgresql@15-main")
    send(box, "when it was back")
    third = ("curl", "--silent", "--insecure", "--user", f"{ADDRESS}:{PASSWORD}", "pop3s://127.0.0.1/3")
    wait_until(
        lambda: b"Subject: when it was back" in box.client(*third).stdout,
        what="mail is handed out again",
        seconds=10,
    )
    assert box.unit("mailstack@smtp", "MainPID") == process
    for unit in ("mailstack-housekeeping", "mailstack-backup"):
        box.good("systemctl", "start", f"{unit}.service")
