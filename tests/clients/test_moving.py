"""An account moves here from a real Dovecot, and its programs do not notice (RFC 1939 §7)."""

from __future__ import annotations

import poplib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.clients.fetchers import FETCHERS, PLAIN, Box
from tests.support import dovecot
from tests.support.appliance import DOMAIN, PASSWORD, POP3_PORT, Appliance, retrieved

pytestmark = pytest.mark.clients

MESSAGES = [
    b"From: eve@example.net\nSubject: %d\nMessage-ID: <%d@example.net>\n\nbody %d\n.\nFrom here\n" % (n, n, n)
    for n in range(5)
] + [b"From: eve@example.net\nSubject: long\n\n" + b"x" * 900_000 + b"\n"]
DOCS = Path(__file__).parents[2] / "docs"
LATER = b"From: eve@example.net\nSubject: later\n\nafter the first import\n"


def told(host: str, user: str = "anna") -> list[tuple[bytes, int, bytes]]:
    """Of each message in order: unique-id, octets by LIST, and what RETR sends."""
    connection = poplib.POP3(host, POP3_PORT, timeout=60)
    connection.user(user)
    connection.pass_(PASSWORD)
    unique_ids = [line.split()[1] for line in connection.uidl()[1]]
    sizes = [int(line.split()[1]) for line in connection.list()[1]]
    contents = [retrieved(connection, number) for number in range(1, len(sizes) + 1)]
    connection.quit()
    return list(zip(unique_ids, sizes, contents, strict=True))


@pytest.mark.parametrize("name", ["fetchmail", "mpop", "getmail6"])
def test_what_was_downloaded_there_is_not_downloaded_here(
    any_appliance: Appliance, tmp_path: Path, name: str
) -> None:
    dovecot.require()
    if name != "getmail6" and shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    fetch, box = FETCHERS[name].fetch, Box(any_appliance, "anna", PLAIN)
    state = tmp_path / "memory"
    state.mkdir()
    with dovecot.dovecot(any_appliance.host, POP3_PORT, "anna", PASSWORD) as old:
        for message in MESSAGES:
            old.deliver(message)
        assert len(fetch(box, state)) == len(MESSAGES)
        assert fetch(box, state) == []
        # While the old server runs, most of the mail comes over; the rest when it has been stopped.
        any_appliance.obey("maildrop", "import", f"anna@{DOMAIN}", str(old.maildir))
        old.deliver(LATER)
        assert len(fetch(box, state)) == 1
        before = told(any_appliance.host)
        copy = shutil.copytree(old.maildir, tmp_path / "Maildir")
    said = any_appliance.obey("maildrop", "import", f"anna@{DOMAIN}", str(copy))
    assert said.startswith(b"1 message of a Maildir imported")
    any_appliance.start()

    assert fetch(box, state) == []
    assert told(any_appliance.host) == before

    assert any_appliance.send(b"Subject: new\r\n\r\nbody\r\n", "anna")[0] == 250
    assert len(fetch(box, state)) == 1
    assert any_appliance.findings() == []


@pytest.mark.parametrize("written", ["%08Xv%08Xu", "%v.%u", "%f", "%Mf"])
def test_an_own_format_of_unique_ids_is_kept_too(appliance: Appliance, tmp_path: Path, written: str) -> None:
    dovecot.require()
    more = f"pop3_uidl_format = {written}"
    with dovecot.dovecot(appliance.host, POP3_PORT, "anna", PASSWORD, more=more) as old:
        for message in MESSAGES[:3]:
            old.deliver(message)
        before = told(appliance.host)
        copy = shutil.copytree(old.maildir, tmp_path / "Maildir")
    appliance.obey("maildrop", "import", f"anna@{DOMAIN}", str(copy), "--uidl-format", written)
    appliance.start()
    assert told(appliance.host) == before


def test_x_uidl_is_taken_as_dovecot_takes_it(appliance: Appliance, tmp_path: Path) -> None:
    dovecot.require()
    with dovecot.dovecot(appliance.host, POP3_PORT, "anna", PASSWORD, more="pop3_reuse_xuidl = yes") as old:
        for number, message in enumerate(MESSAGES[:3]):
            old.deliver(message if number == 1 else b"X-UIDL: qpopper-%d\n" % number + message)
        before = told(appliance.host)
        copy = shutil.copytree(old.maildir, tmp_path / "Maildir")
    assert [each[0] for each in before if each[0].startswith(b"qpopper")] == [b"qpopper-0", b"qpopper-2"]
    appliance.obey("maildrop", "import", f"anna@{DOMAIN}", str(copy), "--uidl", "x-uidl")
    appliance.start()
    assert told(appliance.host) == before


@pytest.mark.parametrize("more", ["", "pop3_reuse_xuidl = yes"])
@pytest.mark.parametrize(
    "fields", [(1, 2, 0, 0), (1, 2, 0, 4242), (1, 2, 2, 1), (1, 0, 2, 0), (1, 3, 2, 4), (0, 2, 0, 3)]
)
def test_an_mbox_is_numbered_as_dovecot_numbers_it(
    appliance: Appliance, tmp_path: Path, fields: tuple[int, ...], more: str
) -> None:
    dovecot.require()
    mbox = b"".join(
        b"From eve@example.net Thu Jan  1 02:37:27 2026\n"
        + (b"X-IMAPbase: 1795786593 0000000004\n" if not number else b"")
        + (b"X-UID: %d\n" % uid if uid else b"")
        + (b"X-UIDL: old-%d\n" % number if number % 2 else b"")
        + b"From: eve@example.net\nSubject: %d\n\nbody\n\n" % number
        for number, uid in enumerate(fields)
    )
    (tmp_path / "mbox").write_bytes(mbox)
    inbox = f"mail_location = mbox:~/mail:INBOX=~/inbox\n{more}"
    with dovecot.dovecot(appliance.host, POP3_PORT, "anna", PASSWORD, more=inbox) as old:
        there = old.maildir.parent / "inbox"
        shutil.copy(tmp_path / "mbox", there)
        shutil.chown(there, dovecot.OWNER, dovecot.OWNER)
        before = told(appliance.host)
    how = "x-uidl" if more else "auto"
    appliance.obey("maildrop", "import", f"anna@{DOMAIN}", str(tmp_path / "mbox"), "--uidl", how)
    appliance.start()
    assert [each[0] for each in told(appliance.host)] == [each[0] for each in before]


def test_the_way_to_dovecot_is_as_open(appliance: Appliance, tmp_path: Path) -> None:
    dovecot.require()
    appliance.start()
    for message in MESSAGES:
        assert appliance.send(message.replace(b"\n", b"\r\n"), "anna")[0] == 250
    before = told(appliance.host)
    appliance.obey("maildrop", "export", f"anna@{DOMAIN}", str(tmp_path / "out"), "--format", "maildir")
    appliance.stop()
    with dovecot.dovecot(appliance.host, POP3_PORT, "anna", PASSWORD) as other:
        shutil.copytree(tmp_path / "out", other.maildir, dirs_exist_ok=True)
        for path in (other.maildir, *other.maildir.rglob("*")):
            shutil.chown(path, dovecot.OWNER, dovecot.OWNER)
        assert told(appliance.host) == before


def test_the_script_of_the_page_moves_a_maildrop_from_any_pop3_server(
    appliance: Appliance, tmp_path: Path
) -> None:
    (page,) = re.findall(r"```python\n(.*?)```", (DOCS / "moving.md").read_text(), re.DOTALL)
    script = page.replace(
        "poplib.POP3_SSL(host, context=ssl.create_default_context())", f"poplib.POP3(host, {POP3_PORT})"
    )
    assert script != page
    (tmp_path / "eml").mkdir()
    odd = ["a/b%2F", "~" * 70, "<1@example.net>", "..", "GmailId10"]
    for number, (unique_id, message) in enumerate(zip(odd, MESSAGES[:5], strict=True), 1):
        (tmp_path / "eml" / f"{number:08}-{quote(unique_id, safe='')}.eml").write_bytes(message)
    appliance.obey("maildrop", "import", f"anna@{DOMAIN}", str(tmp_path / "eml"))
    appliance.start()
    for message in (*MESSAGES, b".\n\n\xff.\n"):
        assert appliance.send(message.replace(b"\n", b"\r\n"), "anna")[0] == 250
    (tmp_path / "fetch.py").write_text(script)
    command = [sys.executable, tmp_path / "fetch.py", appliance.host, "anna", tmp_path / "fetched"]
    subprocess.run(command, input=PASSWORD.encode() + b"\n", check=True, capture_output=True, timeout=60)
    appliance.obey("maildrop", "import", f"ben@{DOMAIN}", str(tmp_path / "fetched"))
    before = told(appliance.host)
    assert [each[0].decode() for each in before[:5]] == odd
    assert told(appliance.host, "ben") == before
