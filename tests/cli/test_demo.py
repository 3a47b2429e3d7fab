"""`mailstack demo`, run as a person runs it: a process that is watched, used and interrupted."""

from __future__ import annotations

import json
import os
import poplib
import random
import re
import signal
import smtplib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailstack import settings
from mailstack.cli import places
from mailstack.cli.demo_home import ADDRESS, DOMAIN, Home
from mailstack.mail.address import Mailbox
from mailstack.store import accounts
from mailstack.store.engine import Database
from mailstack.values import TcpAddress
from tests.support.appliance import wait_until

README = Path(__file__).parents[2] / "README.md"
Start = Callable[..., "Demo"]


class Demo:
    """One `mailstack demo` and all that it has said so far, on both streams."""

    def __init__(self, directory: Path, base: int) -> None:
        self.directory, self.base, self.said = directory, base, ""
        options = ["--directory", str(directory), "--base-port", str(base)]
        self.process = subprocess.Popen(
            # A script's background job inherits an ignored SIGINT; the demo has to take it all the same.
            ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-m", "mailstack", "demo", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("MAILSTACK_")},
                "PYTHONWARNINGS": "always::ResourceWarning",
            },
            start_new_session=True,
        )
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._listen)
        self._reader.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.said += line
                self._news.notify_all()

    def wait_for(self, text: str) -> None:
        """Wait until it has said the text."""
        with self._news:
            assert self._news.wait_for(lambda: text in self.said, 30), f"no {text!r} in:\n{self.said}"

    def end(self) -> int:
        """Wait for its end, and that of everything it has started; return the exit code."""
        code = self.process.wait(30)
        self._reader.join(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        assert "ResourceWarning" not in self.said
        wait_until(lambda: not self._has_left_anything(), what="the end of all that it has started")
        return code

    def _has_left_anything(self) -> bool:
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Interrupt the demo alone, not its server."""
        self.process.send_signal(number)
        return self.end()

    @property
    def password(self) -> str:
        """The password that it has printed."""
        found = re.search(r"^ +password +(\S+)$", self.said, re.MULTILINE)
        assert found, self.said
        return found[1]

    def fetch(self) -> dict[str, bytes]:
        """All messages of the demo's account by unique-id."""
        pop3 = poplib.POP3("127.0.0.1", self.base + 110, timeout=30)
        try:
            pop3.user("demo@demo.example")
            pop3.pass_(self.password)
            listed = (line.decode().split() for line in pop3.uidl()[1])
            return {uid: b"\r\n".join(pop3.retr(int(number))[1]) for number, uid in listed}
        finally:
            pop3.quit()


@pytest.fixture
def base() -> int:
    """Three free ports, below those that the kernel gives to outgoing connections."""
    while True:
        number = random.randrange(10_000, 31_000)
        try:
            for port in (25, 110, 995):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number + port))
        except OSError:
            continue
        return number


@pytest.fixture
def start(tmp_path: Path, base: int) -> Iterator[Start]:
    """Starts demos; what still runs when the test ends is killed."""
    started: list[Demo] = []

    def starter(name: str = "home") -> Demo:
        started.append(Demo(tmp_path / name, base))
        return started[-1]

    yield starter
    for each in started:
        if each.process.poll() is None:
            os.killpg(each.process.pid, signal.SIGKILL)
            each.end()


def test_first_start_delivers_a_welcome_message_and_shows_how_it_came(start: Start) -> None:
    demo = start()
    demo.wait_for("postmaster@demo.example -> demo@demo.example")
    (welcome,) = demo.fetch().values()
    assert b"Subject: Welcome to mailstack" in welcome
    assert b"with ESMTP" in welcome  # it came by our own SMTP, not by a side door
    demo.wait_for("demo@demo.example: 1 fetched")
    assert demo.stop() == 0, demo.said


def test_second_start_finds_the_same_mail_and_the_same_password(start: Start) -> None:
    first = start()
    first.wait_for("What happens")
    with smtplib.SMTP("127.0.0.1", first.base + 25) as smtp:
        smtp.sendmail("you@example.com", ["demo@demo.example"], "Subject: Hello\r\n\r\nIt works.\r\n")
    mail, password = first.fetch(), first.password
    assert first.stop() == 0
    second = start()
    second.wait_for("What happens")
    assert len(mail) == 2
    assert second.fetch() == mail
    assert second.password == password
    assert second.stop(signal.SIGTERM) == 0


def test_other_commands_find_the_ports_that_were_asked_for(start: Start) -> None:
    demo = start()
    demo.wait_for("What happens")
    config = str(demo.directory / "mailstack.toml")
    told = subprocess.run(
        [sys.executable, "-m", "mailstack", "--config", config, "status"],
        check=True,
        timeout=30,
        capture_output=True,
        text=True,
    ).stdout
    assert re.findall(r"^\w+ 127\.0\.0\.1:(\d+): answers$", told, re.MULTILINE) == [
        str(demo.base + port) for port in (25, 110, 995)
    ]
    assert demo.stop() == 0


def test_ports_that_cannot_be_put_into_the_settings_are_said(start: Start, tmp_path: Path) -> None:
    first = start()
    first.wait_for("What happens")
    first.stop()
    config = tmp_path / "home" / "mailstack.toml"
    config.write_text(config.read_text().replace("[smtp]\n", "[smtp]\n\n"))
    again = start()
    assert again.end() == os.EX_CONFIG
    assert "mailstack.toml is no longer as the demo wrote it" in again.said


def test_ports_go_where_others_were_before(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    for base in (20_000, 20_085):  # POP3 was where SMTP comes to
        home.listen_on(places.above(base))
        found = settings.load(home.config, {})
        assert (found.smtp.listen, found.pop3.listen, found.pop3.tls_listen) == tuple(
            (TcpAddress("127.0.0.1", port),) for port in places.above(base)
        )


def test_demo_starts_again_with_what_was_added_and_renamed_in_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    home.config.write_text(f"# ours\n{home.config.read_text()}")
    database = Database(settings.load(home.config, {}).url)
    with database.writing() as connection:
        accounts.rename_account(connection, ADDRESS, Mailbox("jo", DOMAIN))
    before = home.config.read_text()
    again = Home(tmp_path / "home")
    again.prepare()
    assert again.notes == home.notes
    assert home.config.read_text() == before
    with database.reading() as connection:
        assert [each.mailbox for each in accounts.list_accounts(connection)] == [Mailbox("jo", DOMAIN)]
    database.dispose()


def test_lines_to_paste_work_as_they_are(start: Start) -> None:
    demo = start()
    demo.wait_for("What happens")
    lines = [line.strip() for line in demo.said.splitlines() if "curl" in line]
    send, *fetch = lines
    subprocess.run(["sh", "-c", send], check=True, timeout=30)
    listed, first = (
        subprocess.run(["sh", "-c", line], check=True, timeout=30, capture_output=True, text=True).stdout
        for line in fetch
    )
    assert [line.split()[0] for line in listed.splitlines()] == ["1", "2"]
    assert "Welcome to mailstack" in first
    assert any(b"It works." in content for content in demo.fetch().values())
    demo.stop()


def test_readme_lists_what_the_server_announces(start: Start) -> None:
    demo = start()
    demo.wait_for("What happens")
    with smtplib.SMTP("127.0.0.1", demo.base + 25) as smtp:
        smtp.ehlo()
        announced = {keyword.upper() for keyword in smtp.esmtp_features}
    pop3 = poplib.POP3("127.0.0.1", demo.base + 110, timeout=30)
    offered = pop3.capa().keys()
    announced |= offered & {"STLS", "UTF8", "LANG"} | ({"AUTH"} if "SASL" in offered else set())
    pop3.quit()
    demo.stop()
    rows = re.findall(r"^\| ([A-Z0-9, ]+?)(?:,? TLS .*?)? \|", README.read_text(), re.MULTILINE)
    assert announced == {keyword for row in rows for keyword in row.split(", ")} - {
        "SMTP",
        "LMTP",
        "POP3",
        "CAPA",
    }


def test_port_in_use_is_said_with_the_way_out(start: Start, base: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", base + 25))
        other.listen()
        demo = start()
        assert demo.end() != 0
    assert f"cannot listen on 127.0.0.1:{base + 25}: address already in use" in demo.said
    assert "--base-port" in demo.said
    assert "Traceback" not in demo.said
    again = start()  # what the first start had made by then is no hindrance
    again.wait_for("postmaster@demo.example -> demo@demo.example")
    assert again.stop() == 0


def test_server_that_is_not_the_demos_is_left_alone(start: Start, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "mailstack.toml").write_text('hostname = "mail.example.org"\n')
    demo = start()
    assert demo.end() == os.EX_CANTCREAT
    assert "is not the demo's" in demo.said
    assert [each.name for each in (tmp_path / "home").iterdir()] == ["mailstack.toml"]


def test_server_that_dies_ends_the_demo_with_a_reason(start: Start) -> None:
    demo = start()
    demo.wait_for("What happens")
    children = Path(f"/proc/{demo.process.pid}/task/{demo.process.pid}/children").read_text()
    os.kill(int(children), signal.SIGKILL)
    assert demo.end() == os.EX_SOFTWARE
    assert "the server has ended by itself, with code -9" in demo.said


def test_password_is_for_the_owner_of_the_folder_alone(start: Start, tmp_path: Path) -> None:
    demo = start()
    demo.wait_for("What happens")
    demo.stop()
    notes = tmp_path / "home" / "demo.json"
    assert json.loads(notes.read_text())["password"] == demo.password
    assert notes.stat().st_mode & 0o077 == 0
