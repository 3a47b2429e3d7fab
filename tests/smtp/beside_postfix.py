"""Plays the transcripts against Postfix and writes docs/smtp-beside-postfix.md.

`python -m tests.smtp.beside_postfix`, as root, on a machine with postfix: it starts an instance of
its own in a temporary folder, with the domains and accounts of the transcripts, and stops it again.
Texts for people may differ; reply codes, enhanced status codes and the delivered mail may not.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mailstack.service.tls import write_self_signed
from tests.smtp.remarks import REMARKS
from tests.smtp.transcript import HELLO, Event, Step, Transcript, read_all
from tests.support import postfix
from tests.support.beside import NOTHING, Conversation, Deviation, cell
from tests.support.transcripts import mismatch

PAGE = Path(__file__).parents[2] / "docs" / "smtp-beside-postfix.md"

_OWNER = 65534
_CODE = re.compile(rb"(\d\d\d)[ -]?(?:([245]\.\d{1,3}\.\d{1,3}) )?")
_OUR_RECEIVED = re.compile(rb"^Received: from [^\r]+\r\n(?:[ \t][^\r]+\r\n)*", re.MULTILINE)

# Of the transcripts' accounts, what each means to Postfix: whose maildrop, or what RCPT hears.
_MAILBOXES = ("mrose", "jones", "small", "o'hara", "jürgen", "with space")
_ALIASES = {
    "team@example.org": "jones@example.org, mrose@example.org",
    "sales@example.org": "team@example.org",
    **{
        f"{name}@{domain}": "mrose@example.org"
        for name in ("postmaster", "abuse")
        for domain in ("example.org", "empty.example", "xn--bcher-kva.example", "bücher.example")
    },
}
_REFUSED = {
    "full@example.org": "452 4.2.2 full",
    "away@example.org": "550 5.2.1 disabled",
    "nobody@example.org": "550 5.2.1 disabled",
}

_SETTINGS = """
myhostname = mx.example.org
myorigin = example.org
mynetworks = 192.0.2.0/32
default_transport = discard
relay_transport = discard
virtual_alias_domains = was.example
virtual_mailbox_domains = example.org, empty.example, xn--bcher-kva.example, bücher.example
virtual_mailbox_maps = regexp:{folder}/mailboxes
virtual_alias_maps = texthash:{folder}/aliases, regexp:{folder}/renamed
virtual_mailbox_base = {folder}/mail
virtual_uid_maps = static:{owner}
virtual_gid_maps = static:{owner}
virtual_minimum_uid = 1
enable_original_recipient = no
recipient_delimiter = +
message_size_limit = 1000000
virtual_mailbox_limit = 0
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = check_recipient_access texthash:{folder}/refused
smtpd_tls_security_level = may
smtpd_tls_cert_file = {folder}/certificate.pem
smtpd_tls_key_file = {folder}/key.pem
smtpd_error_sleep_time = 0
smtputf8_enable = yes
local_header_rewrite_clients =
notify_classes =
"""


class Result(NamedTuple):
    """A conversation, and where Postfix held it otherwise first: in a code, else in an enhanced code."""

    transcript: Transcript
    code: Deviation | None
    status: Deviation | None


class Receiver:
    """One running Postfix."""

    def __init__(self, folder: Path, port: int, configuration: Path) -> None:
        self.address = ("127.0.0.1", port)
        self.context = ssl.create_default_context(cafile=str(folder / "certificate.pem"))
        self._mail = folder / "mail"
        self._configuration = configuration

    def settle(self) -> None:
        """Everything that was accepted is in a maildrop, or has come to nothing."""
        postfix.wait_for_empty_queue(self._configuration, seconds=30)

    def empty(self) -> None:
        """Remove all mail."""
        self.settle()
        for path in self._mail.iterdir():
            shutil.rmtree(path)

    def mail(self, account: str) -> list[bytes]:
        """All messages of an account, oldest first, with CRLF."""
        self.settle()
        new = self._mail / account / "new"
        paths = sorted(new.iterdir(), key=lambda path: path.stat().st_mtime_ns) if new.exists() else []
        return [path.read_bytes().replace(b"\n", b"\r\n") for path in paths]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A fresh instance for the length of the block."""
    folder = Path(tempfile.mkdtemp(prefix="ms-postfix-"))
    try:
        folder.chmod(0o755)
        (folder / "mail").mkdir()
        os.chown(folder / "mail", _OWNER, _OWNER)
        write_self_signed(folder / "certificate.pem", folder / "key.pem", "localhost")
        _write_maps(folder)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        settings = _SETTINGS.format(folder=folder, owner=_OWNER)
        with postfix.started(folder, listen=("127.0.0.1", port), settings=settings) as configuration:
            yield Receiver(folder, port, configuration)
    finally:
        shutil.rmtree(folder)


def _write_maps(folder: Path) -> None:
    mailboxes = (
        f'/^"?{name}(\\+[^@]*)?"?@example\\.org$/ {name.replace(" ", "_")}/\n' for name in _MAILBOXES
    )
    (folder / "mailboxes").write_text("".join(mailboxes))
    (folder / "aliases").write_text("".join(f"{name} {target}\n" for name, target in _ALIASES.items()))
    (folder / "renamed").write_text("/^(.*)@was\\.example$/ ${1}@example.org\n")
    (folder / "refused").write_text("".join(f"{name} {reply}\n" for name, reply in _REFUSED.items()))


def play(server: Receiver, transcript: Transcript) -> Result:
    """Hold one conversation, up to where a code differs."""
    server.empty()
    playing = _Playing(server)
    status: Deviation | None = None
    try:
        for step in transcript.steps:
            found = playing.step(step)
            code = next((each for each in found if not _same_code(each)), None)
            status = status or next((each for each in found if _same_code(each)), None)
            if code:
                return Result(transcript, code, status)
        return Result(transcript, None, status)
    finally:
        playing.close()


class _Playing:
    """A transcript under way."""

    def __init__(self, server: Receiver) -> None:
        self._server = server
        self._talk = self._greeted()

    def _greeted(self) -> Conversation:
        talk = Conversation(self._server.address, self._server.context)
        talk.hear(1)
        return talk

    def step(self, step: Step) -> list[Deviation]:
        """Say and hear one step; all that differs."""
        self._talk.send(step.sent)
        if step.event is Event.HALF_CLOSE:
            self._talk.half_close()
        # Nobody knows how many lines EHLO has; a moment of silence tells.
        found = list(_differing(step, self._talk.hear(len(step.expected)) if step.expected else b""))
        if step.event is Event.CLOSED and not self._talk.is_over():
            found.append(Deviation(step.sent, b"(the connection ends)", b"(it stays open)"))
        found += self._stored(step)
        self._happen(step.event)
        return found

    def _stored(self, step: Step) -> Iterator[Deviation]:
        if step.event not in (Event.MAIL, Event.MAILS):
            return
        messages = self._server.mail(step.account.replace(" ", "_"))
        if step.event is Event.MAILS and len(messages) != step.count:
            said = (f"{step.account} has {count} messages".encode() for count in (step.count, len(messages)))
            yield Deviation(b"(delivery)", *said)
        elif step.event is Event.MAIL and not messages:
            yield Deviation(b"(delivery)", b"a message", NOTHING)
        elif step.event is Event.MAIL:
            yield from _altered(step.message, _OUR_RECEIVED.sub(b"", messages[-1], count=1))

    def _happen(self, event: Event | None) -> None:
        if event is Event.TLS:
            self._talk.start_tls()
        elif event is Event.DROP:
            self._talk.drop()
            time.sleep(0.3)
        elif event is Event.AGAIN:
            self._talk.socket.close()
            self._talk = self._greeted()

    def close(self) -> None:
        """The end of it."""
        self._talk.socket.close()


def _altered(expected: Sequence[bytes], message: bytes) -> Iterator[Deviation]:
    """The first line of a message that is not what was sent."""
    if mismatch(list(expected), message) is None:
        return
    lines = message.split(b"\r\n")[:-1]
    for at in range(max(len(expected), len(lines))):
        want = expected[at] if at < len(expected) else b"(the end)"
        have = lines[at] if at < len(lines) else b"(the end)"
        if want != have:
            yield Deviation(b"(delivery)", want, have)
            return


def _differing(step: Step, got: bytes) -> Iterator[Deviation]:
    """Where the replies are not those expected; after one that is missing, nothing more is compared."""
    replies = list(_replies(got))
    # Lines of a reply before its last are EHLO's, and every server has its own.
    expected = [want for want in step.expected if want[3:4] != b"-"]
    for want, command in zip(expected, _commands(step.sent, expected), strict=True):
        have = replies.pop(0) if replies else NOTHING
        if have == NOTHING or _of(want) != _of(have):
            yield Deviation(command, want, have)
        if have == NOTHING:
            return
    if replies:
        yield Deviation(step.sent[-60:], b"(nothing more)", replies[0])


def _commands(sent: bytes, expected: Sequence[bytes]) -> Iterator[bytes]:
    """What each reply is to."""
    lines = sent.split(b"\r\n")
    for want in expected:
        line = lines.pop(0) if lines else b""
        yield line
        if line.upper().startswith(b"BDAT "):
            octets = int(line.split()[1]) if line.split()[1].isdigit() else 0
            lines = b"\r\n".join(lines)[octets:].split(b"\r\n")
        if want.startswith(b"354") and b"." in lines:
            lines = [b"(content)", *lines[lines.index(b".") + 1 :]]


def _replies(got: bytes) -> Iterator[bytes]:
    """The last line of each reply."""
    for line in got.split(b"\r\n"):
        if line and line[3:4] != b"-":
            yield line


def _of(reply: bytes) -> tuple[bytes, ...]:
    """Code and enhanced code."""
    if reply == HELLO:
        return (b"250", b"")
    found = _CODE.match(reply)
    if not found:
        return (reply, b"")
    # What EHLO says last is a keyword, and HELO's answer a name.
    return (found[1], found[2] or b"")


def _same_code(deviation: Deviation) -> bool:
    """Whether only the enhanced codes differ."""
    codes = [_of(each)[0] for each in (deviation.expected, deviation.got)]
    return codes[0] == codes[1] and codes[0].isdigit()


def comparable(transcript: Transcript) -> bool:
    """Whether Postfix can be asked: it receives no LMTP, and its store cannot be changed from here."""
    broken = {Event.STORE_FAILS, Event.STORE_BREAKS, Event.REMOVED}
    return (
        transcript.listener == "smtp"
        and transcript.accounts
        and not transcript.settings
        and not any(step.event in broken for step in transcript.steps)
    )


def page(version: str, results: Sequence[Result]) -> str:
    """The page as text."""
    codes = [result for result in results if result.code]
    statuses = [result for result in results if result.status and not result.code]
    return f"""\
# SMTP beside Postfix

The conversations of [the conformance suite](smtp-conformance.md), held with Postfix {version} on the same
machine: the same domains, aliases, refusals and size limit, TLS, `recipient_delimiter = +`, no delay after
errors, otherwise its defaults. Texts for people may differ here; reply codes and the delivered mail may not.
Generated by `python -m tests.smtp.beside_postfix`.

Of {len(results)} conversations Postfix answers {len(results) - len(codes)} with the same codes, and
{len(results) - len(codes) - len(statuses)} of them with the same enhanced codes too.
mailstack answers all as the suite expects, in every run; where it deviates from an RFC on purpose is said on
the page of the suite. LMTP, a store that fails and limits that are set for one conversation are left out.

## Another reply, or other mail

Each with the first difference, and who is right by which rule.

| RFC | behaviour | asked | mailstack | Postfix | by the RFC |
|---|---|---|---|---|---|
{"".join(_row(each.transcript, each.code, remark=True) for each in codes if each.code)}
## The same reply code, another enhanced code

| RFC | behaviour | asked | mailstack | Postfix |
|---|---|---|---|---|
{"".join(_row(each.transcript, each.status, remark=False) for each in statuses if each.status)}"""


def _row(transcript: Transcript, found: Deviation, *, remark: bool) -> str:
    cells = [transcript.section, cell(transcript.behaviour.encode())]
    cells += [f"`{cell(octets)}`" for octets in (found.asked, found.expected, found.got)]
    if remark:
        cells.append(REMARKS[transcript.behaviour])
    return f"| {' | '.join(cells)} |\n"


def run() -> None:
    """Play everything that Postfix can be asked, and write the page."""
    version = subprocess.run(
        ["postconf", "-d", "-h", "mail_version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    results = []
    with receiver() as server:
        for transcript in filter(comparable, read_all()):
            results.append(play(server, transcript))
            print(transcript, results[-1].code or results[-1].status or "as expected", flush=True)
    PAGE.write_text(page(version, results), encoding="utf-8")


if __name__ == "__main__":
    run()
