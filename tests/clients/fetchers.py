"""Fetching programs: each downloads what is new to it, leaves or deletes it, and keeps its state.

`FETCHERS` is the one table of who they are and of what each of them changes in what it was sent.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support import reference
from tests.support.appliance import HOSTNAME, PASSWORD, POP3_PORT, POP3S_PORT, Appliance, retrieved

PLAIN, STLS, TLS = "plain", "stls", "tls"

_FETCHMAIL_BUFFER = 8191


class Box(NamedTuple):
    """Whose mail is fetched, from where and how, and whether it is deleted there."""

    appliance: Appliance
    account: str
    transport: str
    delete: bool = False

    @property
    def port(self) -> int:
        """Where this transport begins."""
        return POP3S_PORT if self.transport == TLS else POP3_PORT


class Fetcher(NamedTuple):
    """A program: how to run it, and what it makes of the octets of a message."""

    fetch: Callable[[Box, Path], list[bytes]]
    """Of somebody's mail, and a folder for its state: the messages new to it."""
    changes: Callable[[bytes], bytes]
    mend: Callable[[bytes], bytes]
    """Takes out of what it kept the changes that nobody can foretell."""
    transports: Sequence[str] = (PLAIN, STLS, TLS)


def poplib(box: Box, folder: Path) -> list[bytes]:
    """Python's own client, with the few lines around it that every script has: it keeps the UIDLs."""
    if box.transport == STLS:
        connection = box.appliance.pop3_plain()
        connection.stls(box.appliance.tls_context())
        connection.user(box.account)
        connection.pass_(PASSWORD)
    else:
        connection = box.appliance.pop3(box.account, tls=box.transport == TLS)
    new = _new(b"\n".join(connection.uidl()[1]), folder)
    found = [retrieved(connection, number) for number in new]
    if box.delete:
        for number in new:
            connection.dele(number)
    connection.quit()
    return found


def curl(box: Box, folder: Path) -> list[bytes]:
    """One connection for all, and the UIDLs kept as a script around it does."""
    url = f"{'pop3s' if box.transport == TLS else 'pop3'}://{HOSTNAME}:{box.port}/"
    common = [
        "curl", "--silent", "--show-error", "--user", f"{box.account}:{PASSWORD}", "--max-time", "100",
        "--resolve", f"{HOSTNAME}:{box.port}:{box.appliance.host}",
        "--cacert", str(box.appliance.certificate),
        *(["--ssl-reqd"] if box.transport == STLS else []),
    ]  # fmt: skip
    new = _new(_run([*common, "--request", "UIDL", url]), folder)
    if not new:
        return []
    urls = f"{url}{{{','.join(map(str, new))}}}"
    _run([*common, urls, "--output", str(folder / "#1")])
    if box.delete:
        _run([*common, "--request", "DELE", "--head", urls])
    return [(folder / str(number)).read_bytes() for number in new]


def fetchmail(box: Box, folder: Path) -> list[bytes]:
    """It hands what it fetches to another program; here, to a file of batched SMTP."""
    tls = f"sslcertck sslcertfile {box.appliance.certificate} sslcommonname {HOSTNAME}"
    batch = folder / "batch"
    _write_secret(
        folder / "rc",
        f"""
set no bouncemail
set invisible
poll {box.appliance.host} protocol pop3 service {box.port} timeout 60 uidl bad-header accept
  user "{box.account}" password "{PASSWORD}"
  {"ssl" if box.transport == TLS else ""}
  {"sslproto ''" if box.transport == PLAIN else "sslproto TLS1.2+ " + tls}
  {"nokeep" if box.delete else "keep"}
  no rewrite no mimedecode pass8bits no dropstatus no dropdelivered antispam -1
  bsmtp {batch}
""",
    )
    batch.unlink(missing_ok=True)
    _run(
        [
            "fetchmail",
            "--fetchmailrc",
            folder / "rc",
            "--idfile",
            folder / "ids",
            "--pidfile",
            folder / "pid",
        ],
        # Its own code for "there was nothing new".
        accept=(0, 1),
    )
    return _batched(batch.read_bytes()) if batch.exists() else []


def mpop(box: Box, folder: Path) -> list[bytes]:
    """It delivers into a maildir by itself."""
    maildir = _maildir(folder)
    _write_secret(
        folder / "rc",
        f"""
account default
host {box.appliance.host}
port {box.port}
user {box.account}
password {PASSWORD}
auth user
tls {"off" if box.transport == PLAIN else "on"}
tls_starttls {"on" if box.transport == STLS else "off"}
tls_trust_file {box.appliance.certificate}
tls_host_override {HOSTNAME}
keep {"off" if box.delete else "on"}
uidls_file {folder / "ids"}
received_header off
delivery maildir {maildir}
""",
    )
    _run(["mpop", "--quiet", "--file", folder / "rc", "default"])
    return _emptied(maildir / "new")


def getmail(box: Box, folder: Path) -> list[bytes]:
    """getmail6, which knows no STLS. As root it delivers into no maildir, but runs a program a message."""
    new = folder / "new"
    new.mkdir(exist_ok=True)
    tls = box.transport == TLS
    _write_secret(
        folder / "rc",
        f"""
[retriever]
type = SimplePOP3{"SSL" if tls else ""}Retriever
server = {box.appliance.host}
port = {box.port}
username = {box.account}
password = {PASSWORD}
{f"ca_certs = {box.appliance.certificate}" if tls else ""}
{f"ssl_cert_hostname = {HOSTNAME}" if tls else ""}
[destination]
type = MDA_external
path = /bin/sh
arguments = ("-c", "exec cat > {new}/$$")
allow_root_commands = true
[options]
delete = {str(box.delete).lower()}
read_all = false
delivered_to = false
received = false
verbose = 0
""",
    )
    _run([Path(sys.executable).parent / "getmail", "--getmaildir", folder, "--rcfile", "rc"])
    return _emptied(new)


# -- what they make of it --------------------------------------------------------------------------


def nothing(message: bytes) -> bytes:
    """It is kept as it was sent."""
    return message


def unix_lines(message: bytes) -> bytes:
    """Line ends become those of this system."""
    return message.replace(b"\r\n", b"\n")


def by_fetchmail(message: bytes) -> bytes:
    """fetchmail's habits: what goes from the header, and what it puts into the body."""
    head, blank_line, body = message.partition(b"\r\n\r\n")
    if not blank_line:
        # A message that is all header gets the blank line that it lacks.
        head, body = head.removesuffix(b"\r\n"), b""
    # Its reverse-path goes into the MAIL command for the next program, and a `From ` line comes, it
    # thinks, from a mailbox file.
    lines = [line for line in head.split(b"\r\n")[1:] if not line.startswith(b"From ")]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def without_fetchmails_breaks(message: bytes) -> bytes:
    """fetchmail breaks a line that its buffer does not hold, with a NUL and one octet of its memory."""
    return re.sub(rb"\0(?<=[^\n]{%d})[^\r]\r\n" % (_FETCHMAIL_BUFFER + 1), b"", message)


def by_getmail(message: bytes) -> bytes:
    """getmail takes a message apart and writes it anew; so its own code has to say what comes of it."""
    from getmailcore.message import Message

    lines = message.split(b"\r\n")
    made: bytes = Message(fromlines=lines).flatten(False, False)
    return made


FETCHERS = {
    "poplib": Fetcher(poplib, nothing, nothing),
    "curl": Fetcher(curl, nothing, nothing),
    "fetchmail": Fetcher(fetchmail, by_fetchmail, without_fetchmails_breaks),
    "mpop": Fetcher(mpop, unix_lines, nothing),
    "getmail6": Fetcher(getmail, by_getmail, nothing, transports=(PLAIN, TLS)),
}


# -- helpers ---------------------------------------------------------------------------------------


def _run(command: Sequence[str | Path], *, accept: Sequence[int] = (0,)) -> bytes:
    done = subprocess.run(command, capture_output=True, timeout=110)
    assert done.returncode in accept, (done.returncode, done.stdout[-1000:], done.stderr[-1000:])
    return done.stdout


def _new(listing: bytes, folder: Path) -> list[int]:
    """The numbers of those in a UIDL listing that were never in one before."""
    ids = folder / "ids"
    had = ids.read_bytes().split() if ids.exists() else []
    listed = [line.split() for line in listing.splitlines() if line]
    ids.write_bytes(b"\n".join([*had, *(unique_id for _, unique_id in listed)]))
    return [int(number) for number, unique_id in listed if unique_id not in had]


def _write_secret(path: Path, text: str) -> None:
    """Programs refuse a file with a password that others may read."""
    path.write_text(text)
    path.chmod(0o600)


def _maildir(folder: Path) -> Path:
    maildir = folder / "maildir"
    for name in ("cur", "new", "tmp"):
        (maildir / name).mkdir(parents=True, exist_ok=True)
    return maildir


def _emptied(folder: Path) -> list[bytes]:
    """What was delivered since the last time."""
    found = []
    for path in sorted(folder.iterdir()):
        found.append(path.read_bytes())
        path.unlink()
    return found


def _batched(batch: bytes) -> list[bytes]:
    """The messages of a file of batched SMTP: dots are stuffed, and commands stand before each."""
    found = []
    while batch:
        _, _, batch = batch.partition(b"\r\nDATA\r\n")
        content, _, batch = batch.partition(b"\r\n.\r\n")
        found.append(reference.unstuffed(content + b"\r\n"))
    return found
