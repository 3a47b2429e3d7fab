"""What systemd hears from the service: ready, alive, reloading, stopping, and what a reload changes."""

from __future__ import annotations

import os
import re
import signal
import smtplib
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mailstack.service.tls import write_self_signed
from tests.support.appliance import SMTP_PORT, Appliance

PATIENCE_SECONDS = 30.0


class Manager:
    """The socket of a service manager, and what has been said to it."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)

    def close(self) -> None:
        self._socket.close()

    def environ(self, *, watchdog_seconds: float) -> dict[str, str]:
        return {"NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": str(int(watchdog_seconds * 1_000_000))}

    def next(self, seconds: float = PATIENCE_SECONDS) -> dict[str, str]:
        """The fields of the next message."""
        self._socket.settimeout(seconds)
        said = self._socket.recv(4096).decode()
        return dict(line.split("=", 1) for line in said.splitlines())

    def wait_for(self, field: str) -> dict[str, str]:
        """The next message that has this field."""
        while field not in (said := self.next()):
            pass
        return said

    def is_silent(self, seconds: float) -> bool:
        """Whether nothing is said for so long, once what was on its way has come."""
        try:
            self.next(seconds)
        except TimeoutError:
            return True
        return False


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with closing(Manager(tmp_path)) as made:
        yield made


def change(appliance: Appliance, before: str, after: str) -> None:
    text = appliance.config.read_text()
    assert before in text
    appliance.config.write_text(text.replace(before, after))


def recipients_announced(appliance: Appliance) -> int:
    with appliance.smtp() as connection:
        found = re.search(r"RCPTMAX=(\d+)", connection.ehlo_resp.decode())
    assert found is not None
    return int(found[1])


def served_certificate(appliance: Appliance) -> bytes:
    context = ssl._create_unverified_context()
    with smtplib.SMTP(appliance.host, SMTP_PORT, timeout=60) as connection:
        connection.starttls(context=context)
        certificate = connection.sock.getpeercert(binary_form=True)
    assert certificate is not None
    return certificate


def test_from_ready_to_stopping(appliance: Appliance, manager: Manager) -> None:
    process = appliance.run(environ=manager.environ(watchdog_seconds=1))
    assert manager.next() == {"READY": "1", "STATUS": "serving smtp, pop3, pop3s; 0 connections"}
    process.wait_ready()
    with closing(appliance.smtp()):
        for _ in range(3):
            alive = manager.wait_for("WATCHDOG")
        assert alive["STATUS"] == "serving smtp, pop3, pop3s; 1 connection"
    appliance.stop()
    assert manager.wait_for("STOPPING")["STATUS"] == "letting what is under way end"


def test_without_a_watchdog_only_the_status_is_kept_up(appliance: Appliance, manager: Manager) -> None:
    appliance.run(environ={"NOTIFY_SOCKET": manager.address}).wait_ready()
    assert "READY" in manager.next()
    assert "STATUS" in manager.next()


def test_a_process_that_is_stuck_gives_no_sign_of_life(appliance: Appliance, manager: Manager) -> None:
    process = appliance.run(environ=manager.environ(watchdog_seconds=0.6))
    process.wait_ready()
    manager.wait_for("WATCHDOG")
    os.kill(process.pid, signal.SIGSTOP)
    try:
        while not manager.is_silent(1.5):
            pass
    finally:
        os.kill(process.pid, signal.SIGCONT)
    manager.wait_for("WATCHDOG")


def test_workers_are_alive_when_every_one_of_them_is(appliance: Appliance, manager: Manager) -> None:
    process = appliance.run("--workers", "2", environ=manager.environ(watchdog_seconds=0.6))
    process.wait_ready()
    told = manager.next()
    assert told["READY"] == "1"
    assert told["STATUS"].startswith("2 processes: ")
    manager.wait_for("WATCHDOG")
    stuck, _ = process.children()
    os.kill(stuck, signal.SIGSTOP)
    try:
        while not manager.is_silent(1.5):
            pass
    finally:
        os.kill(stuck, signal.SIGCONT)
    told = manager.wait_for("WATCHDOG")
    assert re.fullmatch(
        r"2 processes: (serving .*; \d connections?) \| (serving .*; \d connections?)", told["STATUS"]
    )


def test_a_reload_changes_what_can_be_changed_and_names_the_rest(
    appliance: Appliance, manager: Manager
) -> None:
    process = appliance.run(environ=manager.environ(watchdog_seconds=60))
    process.wait_ready()
    manager.wait_for("READY")
    assert recipients_announced(appliance) == 1000
    before = served_certificate(appliance)
    with appliance.smtp() as open_before:
        change(appliance, "[smtp]\n", "[smtp]\nmax_recipients = 123\nmax_message_size = '1MiB'\n")
        write_self_signed(appliance.certificate, appliance.folder / "private_key.pem", "new.example.test")
        os.kill(process.pid, signal.SIGHUP)
        assert manager.wait_for("RELOADING")["MONOTONIC_USEC"].isdecimal()
        status = manager.wait_for("READY")["STATUS"]
        assert status.endswith("a restart is needed for smtp.max_message_size")
        assert recipients_announced(appliance) == 123
        assert served_certificate(appliance) != before
        assert open_before.noop()[0] == 250
    said = [line for line in appliance.said().splitlines() if "event=reloaded" in line]
    assert len(said) == 1
    assert "changed=smtp.max_recipients needs_restart=smtp.max_message_size" in said[0]


def test_a_reload_to_debug_listens_for_deafness_and_one_back_does_not(
    appliance: Appliance, manager: Manager
) -> None:
    process = appliance.run(environ=manager.environ(watchdog_seconds=60))
    process.wait_ready()
    manager.wait_for("READY")
    assert not beats(process.pid)
    levels = ("[store]\n", '[log]\nlevel = "debug"\n[store]\n', '[log]\nlevel = "info"\n[store]\n')
    for before, after, level in ((*levels[:2], "debug"), (*levels[1:], "info")):
        change(appliance, before, after)
        os.kill(process.pid, signal.SIGHUP)
        manager.wait_for("RELOADING")
        manager.wait_for("READY")
        assert beats(process.pid) is (level == "debug")


def beats(pid: int) -> bool:
    """Whether the process wakes up a hundred times a second, as one does that measures its own deafness."""

    def waits() -> int:
        found = re.search(r"^voluntary_ctxt_switches:\s(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)
        assert found is not None
        return int(found[1])

    before = waits()
    time.sleep(1)
    return waits() - before > 20


def test_a_reload_of_settings_that_are_wrong_changes_nothing(appliance: Appliance, manager: Manager) -> None:
    process = appliance.run(environ=manager.environ(watchdog_seconds=60))
    process.wait_ready()
    manager.wait_for("READY")
    before = served_certificate(appliance)
    change(appliance, "[smtp]\n", "[smtp]\nmax_recipients = 123\n")
    (appliance.folder / "private_key.pem").write_text("no key")
    os.kill(process.pid, signal.SIGHUP)
    manager.wait_for("RELOADING")
    manager.wait_for("READY")
    assert 'event="not reloaded"' in appliance.said()
    assert recipients_announced(appliance) == 1000
    assert served_certificate(appliance) == before
