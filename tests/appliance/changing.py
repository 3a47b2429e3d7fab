"""What an administrator changes on a machine that serves, by the commands of the page on systemd."""

from __future__ import annotations

import re
import shutil
import socket
from pathlib import Path
from typing import Final

from tests.appliance.box import Box
from tests.appliance.clients import ADDRESS, send, unique_ids
from tests.support.appliance import wait_until

PAGE: Final = (Path(__file__).parents[2] / "docs" / "systemd.md").read_text()


def follow(box: Box, *commands: str) -> None:
    """Run commands that stand on the page as they are."""
    for each in commands:
        assert f"\n{each}\n" in PAGE, each
        box.good("sh", "-c", each)


def listens(box: Box, port: int) -> bool:
    """Whether anybody takes connections there."""

    def connected() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=30).close()
        except ConnectionRefusedError:
            return False
        return True

    return box.inside(connected)


def say(box: Box, pattern: str, replacement: str) -> None:
    """Change one line of the settings."""
    file = box.root / "etc/mailstack/mailstack.toml"
    text, changes = re.subn(pattern, replacement, file.read_text(), flags=re.MULTILINE)
    assert changes == 1
    file.write_text(text)


def a_service_brings_its_ports_along(box: Box) -> None:
    box.good("systemctl", "stop", "mailstack.target")
    wait_until(lambda: not listens(box, 995), what="the ports are closed")
    box.good("systemctl", "start", "mailstack@pop3")
    assert (listens(box, 110), listens(box, 995), listens(box, 25)) == (True, True, False)
    box.good("systemctl", "start", "mailstack.target")
    assert listens(box, 25)


def each_port_can_be_another(box: Box) -> None:
    for name, port, other in (("smtp", 25, 2525), ("pop3", 110, 2110), ("pop3s", 995, 2995)):
        unit = f"mailstack-{name}.socket"
        folder = box.root / f"etc/systemd/system/{unit}.d"
        folder.mkdir()
        (folder / "override.conf").write_text(f"[Socket]\nListenStream=\nListenStream={other}\n")
        box.good("systemctl", "daemon-reload")
        restart = "systemctl restart mailstack-smtp.socket"
        follow(box, restart) if name == "smtp" else box.good("systemctl", "restart", unit)
        assert (listens(box, port), listens(box, other)) == (False, True)
        shutil.rmtree(folder)
        box.good("systemctl", "daemon-reload")
        box.good("systemctl", "restart", unit)
        assert (listens(box, port), listens(box, other)) == (True, False)
    send(box, "at the usual ports again")
    assert unique_ids(box)


def a_port_that_is_switched_off_stays_off(box: Box) -> None:
    before = unique_ids(box)
    say(box, r'^listen = \["\[::\]:110"\]', "listen = []")
    follow(box, "systemctl disable --now mailstack-pop3.socket")
    for again in (
        lambda: None,
        lambda: box.good("systemctl", "restart", "mailstack.target"),
        lambda: box.good("systemctl", "restart", "mailstack@pop3"),
        lambda: _set_up_again(box),
        lambda: _reboot(box),
    ):
        again()
        assert not listens(box, 110)
        assert unique_ids(box) == before
        assert not listens(box, 110)
    assert "ok       mailstack-pop3.socket: off" in box.run("mailstack", "doctor", "--offline").stdout
    say(box, r"^listen = \[\]", 'listen = ["[::]:110"]')
    follow(box, "systemctl enable mailstack-pop3.socket", "systemctl restart mailstack-pop3.socket")
    assert listens(box, 110)
    assert unique_ids(box) == before


def a_protocol_that_is_switched_off_stays_off(box: Box) -> None:
    say(box, r'^listen = \["\[::\]:25"\]', "listen = []")
    follow(box, "systemctl disable --now mailstack-smtp.socket mailstack@smtp.service")
    box.good("systemctl", "restart", "mailstack.target")
    _set_up_again(box)
    assert not listens(box, 25)
    assert box.unit("mailstack@smtp", "ActiveState") == "inactive"
    assert unique_ids(box)


def a_backup_elsewhere_needs_no_usual_folder(box: Box) -> None:
    say(box, r'^folder = "/var/backups/mailstack"', 'folder = "/srv/copies"')
    _set_up_again(box)
    shutil.rmtree(box.root / "var/backups/mailstack")
    box.good("systemctl", "start", "mailstack-backup.service")
    assert len(box.good("mailstack", "backup", "list").splitlines()) >= 2


def _set_up_again(box: Box) -> None:
    assert "the server is started" in box.good("mailstack", "setup", ADDRESS, "--offline")


def _reboot(box: Box) -> None:
    box.power_off()
    box.boot()
