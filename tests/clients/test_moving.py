"""An account moves here from a real Dovecot, and its programs do not notice (RFC 1939 §7)."""

from __future__ import annotations

import poplib
import shutil
from pathlib import Path

import pytest

from tests.clients.fetchers import FETCHERS, PLAIN, Box
from tests.support import dovecot
from tests.support.appliance import DOMAIN, PASSWORD, POP3_PORT, Appliance, retrieved

pytestmark = pytest.mark.clients

MESSAGES = [
    b"From: eve@example.net\nSubject: %d\nMessage-ID: <%d@example.net>\n\nbody %d\n.\nFrom here\n" % (n, n, n)
    for n in range(5)
] + [b"From: eve@example.net\nSubject: long\n\n" + b"x" * 900_000 + b"\n"]
LATER = b"From: eve@example.net\nSubject: later\n\nafter the first import\n"


def told(host: str) -> list[tuple[bytes, int, bytes]]:
    """Of each message in order: unique-id, octets by LIST, and what RETR sends."""
    connection = poplib.POP3(host, POP3_PORT, timeout=60)
    connection.user("anna")
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


@pytest.mark.parametrize("written", ["%08Xv%08Xu", "%v.%u", "%f"])
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
