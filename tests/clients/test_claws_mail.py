"""A mail program with windows, as people use it: Claws Mail on a display that nobody sees.

`MAILSTACK_SCREENSHOT=FILE` keeps a picture of its inbox, as in docs/images.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.fetchers import PLAIN, STLS, TLS, Box
from tests.support.appliance import DOMAIN, HOSTNAME, PASSWORD, Appliance, copy_template

pytestmark = [pytest.mark.clients, pytest.mark.long]

MAILS = (
    ("Eve Example <eve@example.net>", "Lunch on Friday?"),
    ("Kim <kim@example.net>", "Minutes of the meeting"),
    ("Backup <backup@example.net>", "All is saved"),
)
_FOLDERS = {"inbox": "inbox", "outbox": "sent", "draft": "draft", "queue": "queue", "trash": "trash"}
_QUESTION = "Input password"
_NEEDED = ("claws-mail", "Xvfb", "xdotool")


@pytest.fixture
def office(tmp_path: Path, sqlite_template: Path) -> Iterator[Appliance]:
    """An account with three mails."""
    (tmp_path / "office").mkdir()
    with Appliance(tmp_path / "office", settings="") as appliance:
        copy_template(sqlite_template, appliance)
        appliance.add_accounts("jo")
        appliance.run("smtp", "pop3").wait_ready()
        with appliance.smtp() as smtp:
            for hour, (sender, subject) in enumerate(MAILS, 8):
                smtp.sendmail(
                    "eve@example.net",
                    [f"jo@{DOMAIN}"],
                    f"From: {sender}\r\nTo: jo@{DOMAIN}\r\nSubject: {subject}\r\n"
                    f"Date: Mon, 5 Jan 2026 {hour:02}:00:00 +0000\r\nMessage-ID: <{hour}@example.net>\r\n\r\n"
                    "Hello Jo,\r\n\r\nthis came by SMTP and went by POP3.\r\n",
                )
        yield appliance


@pytest.fixture
def display(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of programs on a screen that is memory only."""
    read, write = os.pipe()
    with subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "800x560x24"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    ) as server:
        os.close(write)
        with os.fdopen(read) as number:
            name = f":{number.readline().strip()}"
        yield {**os.environ, "DISPLAY": name, "HOME": str(tmp_path), "NO_AT_BRIDGE": "1"}
        server.terminate()


def configure(home: Path, box: Box) -> None:
    """What Claws Mail's first questions would have put there; of our certificate it asks nothing."""
    office, transport = box.appliance, box.transport
    settings = home / ".claws-mail"
    settings.mkdir()
    (settings / "clawsrc").write_text(
        "[Common]\nconfig_version=4\nonline_mode=1\nno_receive_error_panel=1\nreceive_dialog_mode=2\n"
        "skip_ssl_cert_check=1\n"
        "mainwin_x=0\nmainwin_y=0\nmainwin_width=800\nmainwin_height=560\nfolderview_vis=1\n"
    )
    (settings / "accountrc").write_text(
        f"[Account: 1]\naccount_name=office\nis_default=1\nname=Jo\naddress=jo@{DOMAIN}\nprotocol=0\n"
        f"receive_server={office.host}\nsmtp_server={office.host}\nuser_id=jo\nset_popport=1\n"
        f"pop_port={box.port}\nssl_pop={(PLAIN, TLS, STLS).index(transport)}\nremove_mail={int(box.delete)}\n"
        "message_leave_time=0\nmessage_leave_hour=0\nreceive_at_get_all=1\ninbox=#mh/Mail/inbox\n"
    )
    items = ""
    for kind, name in _FOLDERS.items():
        (home / "Mail" / name).mkdir(parents=True)
        items += f'<folderitem type="{kind}" collapsed="0" name="{name}" path="{name}"/>\n'
    (settings / "folderlist.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<folderlist>\n'
        f'<folder type="mh" collapsed="0" name="Mail" path="Mail">\n{items}</folder>\n</folderlist>\n'
    )


def until(condition: Callable[[], bool], *, what: str) -> None:
    """Wait for something that happens on a screen."""
    for _ in range(120):
        if condition():
            return
        time.sleep(0.5)
    pytest.fail(f"{what} did not happen")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("delete", [False, True], ids=["leave", "delete"])
@pytest.mark.parametrize("transport", [PLAIN, STLS, TLS])
def test_claws_mail_fetches_all_and_then_nothing(
    office: Appliance, display: dict[str, str], tmp_path: Path, transport: str, delete: bool
) -> None:
    if missing := [program for program in _NEEDED if shutil.which(program) is None]:
        pytest.skip(f"{', '.join(missing)} is not installed")
    configure(tmp_path, Box(office, "jo", transport, delete))
    inbox = tmp_path / "Mail" / "inbox"

    def fetched() -> list[Path]:
        return [path for path in inbox.iterdir() if path.name.isdecimal()]

    def xdotool(*arguments: str) -> str:
        return subprocess.run(
            ["xdotool", *arguments], env=display, capture_output=True, text=True
        ).stdout.strip()

    def sessions() -> int:
        return office.log.read_text().count("event=pop3.session")

    def fetch(count: int) -> None:
        """Answer the question for a password, and wait for the end of the session."""
        until(lambda: xdotool("search", "--name", _QUESTION) != "" or sessions() == count, what=_QUESTION)
        if sessions() < count:
            time.sleep(2)  # until it takes keys
            xdotool("windowfocus", "--sync", xdotool("search", "--name", _QUESTION))
            xdotool("type", "--delay", "60", PASSWORD)
            xdotool("key", "Return")
        until(lambda: sessions() == count, what="the end of the session")

    command = ["claws-mail", "--receive-all"]
    with subprocess.Popen(command, env=display, stderr=subprocess.DEVNULL) as program:
        try:
            fetch(1)
            until(lambda: len(fetched()) == len(MAILS), what="the arrival of three mails")
            if picture := os.environ.get("MAILSTACK_SCREENSHOT"):
                _take_picture(display, picture)
            # The second time it knows them all by their UIDLs.
            subprocess.run(command, env=display, capture_output=True, timeout=30)
            fetch(2)
        finally:
            program.kill()
    assert len(fetched()) == len(MAILS)
    text = "".join(path.read_text() for path in fetched())
    assert all(f"Subject: {subject}\n" in text for _, subject in MAILS)
    first, second = (line for line in office.log.read_text().splitlines() if "event=pop3.session" in line)
    assert "retrieved=3 " in first
    assert "retrieved=0 " in second
    assert text.count(f"by {HOSTNAME}") == len(MAILS)
    assert ("tls=" in first) == ("tls=" in second) == (transport != PLAIN)
    assert office.pop3("jo").stat()[0] == (0 if delete else len(MAILS))


def _take_picture(display: dict[str, str], file: str) -> None:
    subprocess.run(
        ["claws-mail", "--select", "#mh/Mail/inbox/2"], env=display, capture_output=True, timeout=30
    )
    time.sleep(3)
    subprocess.run(["import", "-window", "root", "-colors", "48", file], env=display, check=True)
