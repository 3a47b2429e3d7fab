"""The page for a new administrator, followed on a fresh Debian to a message in a mail program."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

import pytest

from mailstack.service.tls import write_self_signed
from tests.appliance.box import Box
from tests.appliance.clients import certificate_of
from tests.appliance.conftest import MakeBox
from tests.appliance.package import package
from tests.support import resolver
from tests.support.appliance import wait_until

pytestmark = [pytest.mark.appliance, pytest.mark.timeout(900)]

PAGE: Final = (Path(__file__).parents[2] / "docs" / "install.md").read_text()
TLS_PAGE: Final = (Path(__file__).parents[2] / "docs" / "tls.md").read_text()
ADDRESS: Final = "you@example.org"
PUBLIC: Final = "9.8.7.6"
RECORDS: Final = (
    f"mail.example.org. IN A {PUBLIC}",
    "6.7.8.9.in-addr.arpa. IN PTR mail.example.org.",
    "example.org. IN MX 10 mail.example.org.",
    'example.org. IN TXT "v=spf1 mx ~all"',
    "_pop3s._tcp.example.org. IN SRV 0 1 995 mail.example.org.",
)
MPOP: Final = """\
account default
host 127.0.0.1
port 995
tls on
tls_starttls off
tls_fingerprint {fingerprint}
user {address}
password {password}
uidls_file {folder}/ids
delivery mbox {folder}/mbox
"""
STRANGER: Final = "import socket, time; s = socket.create_server(('', 25)); time.sleep(600)"


def follow(box: Box, command: str, *, code: int = 0) -> str:
    """Run a command that the page tells, and see it end as told."""
    assert re.search(rf"^{re.escape(command)}(?: +#.*)?$", PAGE, re.MULTILINE), command
    done = box.run("sh", "-c", command)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def part(pattern: str, text: str) -> str:
    """What the pattern's group finds."""
    found = re.search(pattern, text, re.MULTILINE)
    assert found is not None, text
    return found[1]


def files(box: Box) -> dict[str, tuple[int, float]]:
    """What setup makes, and when each was written."""
    kept = ("etc/mailstack", "etc/systemd/system", "var/lib/mailstack/tls", "usr/lib/systemd/system")
    found = (each for name in kept for each in (box.root / name).rglob("*") if each.is_file())
    return {str(each): (each.stat().st_mode, each.stat().st_mtime) for each in found}


def test_the_page_leads_from_a_fresh_debian_to_a_message_in_a_mail_program(
    fresh: MakeBox, tmp_path: Path
) -> None:
    if reason := resolver.available():
        pytest.skip(reason)
    box = fresh("bookworm")
    box.copy_in(package(), "/root/mailstack.deb")
    box.good("dpkg", "--install", "/root/mailstack.deb", seconds=300)

    password = a_port_of_another_program_stops_nothing_but_the_start(box)
    said = the_second_run_starts_it_and_the_third_changes_nothing(box)
    follow(box, rf"printf 'Subject: hello\n\nIt works.\n' | mailstack deliver {ADDRESS}")
    follow(box, "mailstack status")
    fingerprint = part(r"^ +((?:[0-9A-F]{2}:){31}[0-9A-F]{2})$", said)
    a_mail_program_reads_it(box, tmp_path / "mpop", password, fingerprint)
    the_hook_of_certbot_and_lego_puts_a_certificate_in_place(box, tmp_path)
    the_doctor_sees_the_world_and_writes_at_night(box, tmp_path / "resolver")


def a_port_of_another_program_stops_nothing_but_the_start(box: Box) -> str:
    box.good("systemd-run", "--quiet", "--unit=stranger", "python3", "-c", STRANGER)
    wait_until(lambda: ":25 " in box.good("ss", "-ltnH"), what="the stranger has port 25")
    said = follow(box, f"mailstack setup {ADDRESS}", code=69)
    assert re.search(r"smtp needs \S+:25, which is held by python3 \(process \d+\)", said)
    assert "The server is not started: another program holds a port" in said
    assert box.unit("mailstack.target", "ActiveState") == "inactive"
    box.good("systemctl", "stop", "stranger")
    return part(r"^  password: (\S+) ", said)


def the_second_run_starts_it_and_the_third_changes_nothing(box: Box) -> str:
    said = follow(box, f"mailstack setup {ADDRESS}")
    assert "the server is started, answers on every port" in said
    assert "password: " not in said
    assert "example.org.\t3600\tIN\tMX\t10 mail.example.org." in said
    assert "held by mailstack" not in said
    before = files(box)
    assert "held by mailstack" in follow(box, f"mailstack setup {ADDRESS}")
    assert files(box) == before
    return said


def a_mail_program_reads_it(box: Box, folder: Path, password: str, fingerprint: str) -> None:
    """mpop, told what setup has printed: it trusts that certificate by its fingerprint, and no other."""
    if shutil.which("mpop") is None:
        pytest.skip("mpop is not installed")
    folder.mkdir()
    (folder / "rc").write_text(
        MPOP.format(fingerprint=fingerprint, address=ADDRESS, password=password, folder=folder)
    )
    (folder / "rc").chmod(0o600)
    fetched = box.client("mpop", "--quiet", "--file", str(folder / "rc"), "default")
    assert fetched.returncode == 0, fetched.stderr
    mail = (folder / "mbox").read_text()
    assert "\nSubject: hello\n\nIt works.\n" in mail
    assert f"Delivered-To: {ADDRESS}\n" in mail


def the_hook_of_certbot_and_lego_puts_a_certificate_in_place(box: Box, folder: Path) -> None:
    """The script of the page, called as each of them calls it; the server takes the files by itself."""
    hook = box.root / "usr/local/sbin/mailstack-certificate"
    hook.write_text(part(r"^```sh\n(#!/bin/sh\n# Puts a new certificate(?:.|\n)+?)^```", TLS_PAGE))
    hook.chmod(0o755)
    for environ in (
        ("RENEWED_LINEAGE=/root/new",),
        ("LEGO_CERT_PATH=/root/new/fullchain.pem", "LEGO_CERT_KEY_PATH=/root/new/privkey.pem"),
        ("LEGO_HOOK_CERT_PATH=/root/new/fullchain.pem", "LEGO_HOOK_CERT_KEY_PATH=/root/new/privkey.pem"),
    ):
        before = certificate_of(box, 995)
        write_self_signed(folder / "fullchain.pem", folder / "privkey.pem", "mail.example.org")
        (box.root / "root/new").mkdir(exist_ok=True)
        for name in ("fullchain.pem", "privkey.pem"):
            shutil.copy(folder / name, box.root / "root/new" / name)
        box.good("env", *environ, "/usr/local/sbin/mailstack-certificate")
        wait_until(lambda old=before: certificate_of(box, 995) != old, what=f"the files of {environ}")
    assert "ok       private key: fits, and is private" in box.run("mailstack", "doctor", "--offline").stdout


def the_doctor_sees_the_world_and_writes_at_night(box: Box, folder: Path) -> None:
    (box.root / "etc/resolv.conf").unlink(missing_ok=True)
    (box.root / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
    box.good("systemctl", "start", "mailstack-backup.service")
    where = resolver.Where(box.enter_network, box.inside)
    with resolver.running(folder, RECORDS, where=where, port=53):
        assert "the DNS has every record" in box.run("mailstack", "dns").stderr
        said = box.run("mailstack", "doctor").stdout
        # Nobody keeps the clock of a box right, and its only network is loopback.
        bad = {line.split(":")[0] for line in said.splitlines() if line.startswith(("wrong ", "warning "))}
        assert bad <= {"warning  clock"}, said
        for subject in (
            "MX of example.org",
            f"reverse name of {PUBLIC}",
            "database",
            "backup",
            "mailstack-smtp.socket",
        ):
            assert f"ok       {subject}: " in said
        box.good("systemctl", "start", "mailstack-doctor.service")
    first = box.journal("mailstack-doctor.service")
    assert "the postmaster has mail about it" in first
    with resolver.running(folder, [line for line in RECORDS if " MX " not in line], where=where, port=53):
        box.good("systemctl", "start", "mailstack-doctor.service")
    second = box.journal("mailstack-doctor.service").removeprefix(first)
    assert "1 new finding; the postmaster has mail" in second, second
    assert box.unit("mailstack-doctor.timer", "ActiveState") == "active"
