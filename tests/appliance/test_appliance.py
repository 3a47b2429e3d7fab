"""The package on a real, fresh Debian: installed, used, stuck, restarted, rebooted, upgraded, removed."""

from __future__ import annotations

import os
import shutil
import smtplib
from pathlib import Path

import pytest

from mailstack.service.tls import write_self_signed
from tests.appliance import changing
from tests.appliance.box import Box
from tests.appliance.clients import (
    ADDRESS,
    PASSWORD,
    Load,
    certificate_of,
    curl,
    send,
    send_by_curl,
    subjects,
    unique_ids,
)
from tests.appliance.conftest import MakeBox
from tests.appliance.package import OLDER, older_package, package
from tests.appliance.seeing import what_happens_can_be_seen
from tests.support.appliance import wait_until

# The first of them makes a Debian and the package, if nobody has yet.
pytestmark = [pytest.mark.appliance, pytest.mark.timeout(900)]

SOON = """\
[Timer]
OnCalendar=
OnActiveSec=
OnUnitInactiveSec=
OnActiveSec=100ms
RandomizedDelaySec=0
AccuracySec=1ms
"""

UNITS = ("mailstack@smtp.service", "mailstack@pop3.service")


def install(box: Box, deb: Path) -> str:
    box.copy_in(deb, "/root/mailstack.deb")
    return box.good("dpkg", "--install", "/root/mailstack.deb", seconds=300)


def set_up(box: Box) -> None:
    """With one command: settings, a domain, an account, and everything started."""
    setup = ("mailstack", "setup", ADDRESS, "--hostname", "mail.example.org", "--offline", "--password-stdin")
    said = box.good(*setup, stdin=f"{PASSWORD}\n")
    assert "the server is started" in said
    box.good("mailstack", "status")


def drop_in(box: Box, unit: str, text: str) -> None:
    folder = box.root / f"etc/systemd/system/{unit}.d"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test.conf").write_text(text)
    box.good("systemctl", "daemon-reload")


def replace_certificate(box: Box, name: str) -> None:
    tls = box.root / "var/lib/mailstack/tls"
    owner = (tls / "certificate.pem").stat()
    for file in (tls / "certificate.pem", tls / "private-key.pem"):
        assert file.exists()
    write_self_signed(tls / "certificate.pem", tls / "private-key.pem", name)
    for file in tls.iterdir():
        os.chown(file, owner.st_uid, owner.st_gid)


def test_the_package_on_a_fresh_debian(fresh: MakeBox) -> None:
    box = fresh("bookworm")
    assert "mailstack setup you@example.org" in install(box, package())
    set_up(box)
    for check in (
        what_happens_can_be_seen,
        mail_flows_in_and_out,
        a_large_message_comes_whole_behind_many,
        services_run_without_any_right,
        a_secret_reaches_the_service_alone,
        a_stuck_process_is_replaced,
        restarts_lose_nothing_and_refuse_nothing,
        a_reload_swaps_the_certificate,
        timers_run,
        a_reboot_comes_back_by_itself,
        changing.a_service_brings_its_ports_along,
        changing.each_port_can_be_another,
        changing.a_port_that_is_switched_off_stays_off,
        changing.a_protocol_that_is_switched_off_stays_off,
        changing.a_backup_elsewhere_needs_no_usual_folder,
    ):
        check(box)


def mail_flows_in_and_out(box: Box) -> None:
    before = subjects(box)
    send(box, "by TLS")
    send_by_curl(box, "by IPv6", "smtp://[::1]/client.example.net")
    assert subjects(box) == [*before, "by TLS", "by IPv6"]
    assert "Subject: by TLS" in curl(box, f"pop3://127.0.0.1/{len(before) + 1}")
    box.good("systemctl", "enable", "--quiet", "--now", "mailstack-lmtp.socket")
    done = box.run(
        *("python3", "-c"),
        "import smtplib; c = smtplib.LMTP('/run/mailstack/lmtp');"
        f" c.sendmail('eve@example.net', '{ADDRESS}', b'Subject: by LMTP\\r\\n\\r\\nx\\r\\n')",
    )
    assert done.returncode == 0, done.stderr
    assert subjects(box)[-1] == "by LMTP"


def a_large_message_comes_whole_behind_many(box: Box) -> None:
    """What Debian's own Python and SQLite do with the number of a part, once it is large."""
    code = (
        "import sqlite3; database = sqlite3.connect('/var/lib/mailstack/mail.db', isolation_level=None);"
        "database.execute(\"UPDATE sqlite_sequence SET seq = 1000000 WHERE name = 'message'\")"
    )
    box.good("runuser", "-u", "mailstack", "--", "python3", "-c", code)
    text = "Subject: large\r\n\r\n" + "all work and no play\r\n" * 50_000

    def send_it() -> None:
        with smtplib.SMTP("127.0.0.1", 25, timeout=60) as connection:
            connection.sendmail("eve@example.net", ADDRESS, text.encode())

    box.inside(send_it)
    found = curl(box, f"pop3s://127.0.0.1/{len(unique_ids(box))}")
    assert found.endswith(text)
    assert "1000001" in box.journal("mailstack@smtp")


def services_run_without_any_right(box: Box) -> None:
    for unit in (*UNITS, "mailstack@lmtp.service"):
        status = box.good("cat", f"/proc/{box.unit(unit, 'MainPID')}/status")
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert set(facts["Uid"].split()) == {str(os.stat(box.root / "var/lib/mailstack").st_uid)} != {"0"}
        assert {facts[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {"0" * 16}
        assert facts["NoNewPrivs"] == "1"
        assert facts["Seccomp"] == "2"


def a_secret_reaches_the_service_alone(box: Box) -> None:
    secret = box.root / "etc/mailstack/credentials/postmaster"
    secret.write_text(f"{ADDRESS}\n")
    secret.chmod(0o600)
    box.good("systemctl", "restart", "mailstack@smtp")
    send(box, "to the postmaster", "--to", "postmaster@example.org")
    assert subjects(box)[-1] == "to the postmaster"
    assert box.run(
        "runuser", "-u", "mailstack", "--", "cat", "/etc/mailstack/credentials/postmaster"
    ).returncode
    secret.unlink()


def a_stuck_process_is_replaced(box: Box) -> None:
    drop_in(box, "mailstack@smtp.service", "[Service]\nWatchdogSec=2\nRestartSec=200ms\n")
    box.good("systemctl", "restart", "mailstack@smtp")
    stuck = box.unit("mailstack@smtp", "MainPID")
    box.good("kill", "-STOP", stuck)
    send(box, "to one who was stuck")  # it waits in the socket's queue until somebody answers
    assert box.unit("mailstack@smtp", "MainPID") != stuck
    assert int(box.unit("mailstack@smtp", "NRestarts")) == 1
    assert "Watchdog timeout" in box.journal("mailstack@smtp")
    assert subjects(box)[-1] == "to one who was stuck"
    shutil.rmtree(box.root / "etc/systemd/system/mailstack@smtp.service.d")
    box.good("systemctl", "daemon-reload")


def restarts_lose_nothing_and_refuse_nothing(box: Box) -> None:
    load = Load(box)
    load.during(lambda: box.good("systemctl", "restart", "mailstack@smtp", "mailstack@pop3"))
    load.during(lambda: box.good("systemctl", "restart", "mailstack.target"))
    assert load.broken == []
    there = subjects_listed(box)
    assert set(load.acknowledged) <= there


def subjects_listed(box: Box) -> set[str]:
    """Every subject in the maildrop, by one session that asks for headers only."""

    def ask() -> set[str]:
        import poplib

        pop3 = poplib.POP3("127.0.0.1", 110, timeout=60)
        pop3.user(ADDRESS)
        pop3.pass_(PASSWORD)
        count, _ = pop3.stat()
        lines = [line for number in range(count) for line in pop3.top(number + 1, 0)[1]]
        pop3.quit()
        prefix = b"Subject: "
        return {line.removeprefix(prefix).decode() for line in lines if line.startswith(prefix)}

    return box.inside(ask)


def a_reload_swaps_the_certificate(box: Box) -> None:
    before = certificate_of(box, 995)
    assert certificate_of(box, 25, "-starttls", "smtp") == before
    session = box.inside(lambda: smtplib.SMTP("127.0.0.1", 25, timeout=60))
    replace_certificate(box, "new.example.org")
    settings = box.root / "etc/mailstack/mailstack.toml"
    as_set_up = settings.read_text()
    settings.write_text(as_set_up.replace("[smtp]", "[smtp]\nmax_message_size = '1MiB'"))
    box.good("systemctl", "reload", "mailstack@smtp", "mailstack@pop3")
    wait_until(lambda: certificate_of(box, 995) != before, what="the new certificate at POP3", seconds=2)
    wait_until(
        lambda: certificate_of(box, 25, "-starttls", "smtp") == certificate_of(box, 995),
        what="the new certificate at SMTP",
        seconds=2,
    )
    assert session.noop()[0] == 250
    session.close()
    status = box.unit("mailstack@smtp", "StatusText")
    assert status.endswith("a restart is needed for smtp.max_message_size")
    assert "needs_restart=smtp.max_message_size" in box.journal("mailstack@smtp")
    settings.write_text(as_set_up)


def timers_run(box: Box) -> None:
    for name in ("mailstack-housekeeping", "mailstack-backup"):
        drop_in(box, f"{name}.timer", SOON)
        box.good("systemctl", "restart", f"{name}.timer")
        wait_until(
            lambda name=name: (
                box.unit(f"{name}.service", "ExecMainExitTimestampMonotonic") != "0"
                and box.unit(f"{name}.service", "ActiveState") == "inactive"
            ),
            what=f"{name}.service has been run by its timer",
            seconds=60,
        )
        assert box.unit(f"{name}.service", "Result") == "success", box.journal(f"{name}.service")
    assert "all is well" in box.journal("mailstack-backup.service")
    assert len(box.good("mailstack", "backup", "list", "/var/backups/mailstack").splitlines()) >= 2


def a_reboot_comes_back_by_itself(box: Box) -> None:
    before = unique_ids(box)
    assert before
    box.power_off()
    box.boot()
    send(box, "after the reboot")
    assert unique_ids(box)[:-1] == before
    assert subjects_listed(box) >= {"after the reboot", "by TLS"}
    assert box.unit("mailstack-backup.timer", "ActiveState") == "active"


@pytest.mark.long
def test_the_same_package_on_the_next_debian(fresh: MakeBox) -> None:
    box = fresh("trixie")
    install(box, package())
    set_up(box)
    mail_flows_in_and_out(box)
    a_large_message_comes_whole_behind_many(box)
    services_run_without_any_right(box)
    a_reload_swaps_the_certificate(box)
    timers_run(box)
    changing.each_port_can_be_another(box)
    changing.a_port_that_is_switched_off_stays_off(box)


def test_upgrades_keep_mail_and_a_purge_leaves_nothing(fresh: MakeBox, tmp_path: Path) -> None:
    box = fresh("bookworm")
    install(box, older_package(tmp_path))
    assert OLDER in box.good("dpkg-query", "--show", "mailstack")
    set_up(box)
    send(box, "before the upgrade")
    before = unique_ids(box)
    as_set_up = (box.root / "etc/mailstack/mailstack.toml").read_text()
    an_older_schema(box)
    said = install(box, package())
    assert "the schema is at" in said
    box.good("mailstack", "status")
    assert unique_ids(box) == before
    assert subjects(box) == ["before the upgrade"]
    snapshots = list((box.root / "var/lib/mailstack/snapshots").iterdir())
    assert len(snapshots) == 1
    load = Load(box, senders=2)
    load.during(lambda: install(box, package()))
    assert load.broken == []
    assert unique_ids(box)[:1] == before
    assert (box.root / "etc/mailstack/mailstack.toml").read_text() == as_set_up
    a_removal_keeps_mail_and_a_purge_says_what_it_deletes(box)


def an_older_schema(box: Box) -> None:
    """The database as an older program had left it, under services that run."""
    box.good("systemctl", "stop", "mailstack@smtp", "mailstack@pop3")
    code = (
        "from mailstack.store import migrate; from mailstack.store.engine import Database;"
        "migrate.downgrade(Database('sqlite:////var/lib/mailstack/mail.db'), print, revision='0003')"
    )
    python = "/usr/lib/mailstack/bin/python3"
    box.good("runuser", "-u", "mailstack", "--", python, "-I", "-c", code)


def a_removal_keeps_mail_and_a_purge_says_what_it_deletes(box: Box) -> None:
    assert "kept" in box.good("dpkg", "--remove", "mailstack")
    assert (box.root / "var/lib/mailstack/mail.db").exists()
    assert (box.root / "etc/mailstack/mailstack.toml").exists()
    assert not (box.root / "usr/lib/mailstack").exists()
    with pytest.raises(ConnectionRefusedError):
        box.inside(lambda: smtplib.SMTP("127.0.0.1", 25, timeout=10))
    told = box.good("dpkg", "--purge", "mailstack")
    for folder in ("/var/lib/mailstack", "/etc/mailstack"):
        assert f"deleting {folder}" in told
        assert not (box.root / folder.lstrip("/")).exists()
    left = box.good(
        "find", "/", "-xdev", "-name", "*mailstack*", "-not", "-path", "/proc/*", "-not", "-path", "/root/*"
    )
    assert left == ""
    assert box.run("getent", "passwd", "mailstack").returncode == 2
    assert box.good("systemctl", "--failed", "--no-legend") == ""
