"""Plays the transcripts against Dovecot and writes docs/pop3-beside-dovecot.md.

`python -m tests.pop3.beside_dovecot`, as root, on a machine with dovecot-pop3d: it starts an
instance of its own in a temporary folder and stops it again. Texts for people may differ; what a
program reads may not: status, response code, numbers, and the lines of a multi-line reply.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mailstack.service.tls import write_self_signed
from tests.pop3.test_transcripts_on_sockets import other_address
from tests.pop3.transcript import NAME, SECRET, Event, Step, Transcript, read_all, sized
from tests.support.beside import NOTHING, Conversation, Deviation, cell
from tests.support.dovecot import OWNER, dovecot
from tests.support.transcripts import Names, fits

PAGE = Path(__file__).parents[2] / "docs" / "pop3-beside-dovecot.md"

_CODE = re.compile(rb"\[[A-Z/-]+\]")
_NUMBERS = re.compile(rb"\+OK (\d+(?: \d+)?)$")

_SETTINGS = """
ssl = yes
ssl_cert = <{chain}
ssl_key = <{key}
disable_plaintext_auth = yes
auth_failure_delay = 0
auth_mechanisms = plain login scram-sha-256
pop3_lock_session = yes
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service pop3-login {{
  inet_listener pop3s {{
    port = {tls_port}
    ssl = yes
  }}
}}
"""


class Peer:
    """A running Dovecot, and the maildrop of its one account."""

    def __init__(self, maildir: Path, certificate: Path, port: int, tls_port: int) -> None:
        self.port, self.tls_port = port, tls_port
        self.context = ssl.create_default_context(cafile=str(certificate))
        self._maildir = maildir
        self._number = 0

    def fill(self, messages: list[bytes]) -> None:
        """A new maildrop with these messages."""
        shutil.rmtree(self._maildir, ignore_errors=True)
        for name in ("cur", "new", "tmp"):
            (self._maildir / name).mkdir(parents=True)
        for message in messages:
            self.deliver(message)
        for path in (self._maildir.parent, self._maildir, *self._maildir.rglob("*")):
            os.chown(path, OWNER, OWNER)

    def deliver(self, message: bytes) -> None:
        """One more message, as a delivery agent stores it."""
        self._number += 1
        path = self._maildir / "new" / f"{1_700_000_000 + self._number}.M{self._number}P1.localhost"
        path.write_bytes(message.replace(b"\r\n", b"\n"))
        os.chown(path, OWNER, OWNER)

    def messages(self) -> int:
        """How many messages there are."""
        return sum(1 for name in ("cur", "new") for _ in (self._maildir / name).iterdir())


@contextmanager
def peer() -> Iterator[Peer]:
    """A fresh instance for the length of the block."""
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            ports.append(probe.getsockname()[1])
    listen = ",".join(filter(None, ("127.0.0.1", other_address())))
    with tempfile.TemporaryDirectory() as folder:
        chain, key = Path(folder) / "certificate.pem", Path(folder) / "key.pem"
        write_self_signed(chain, key, "localhost")
        more = _SETTINGS.format(chain=chain, key=key, tls_port=ports[1])
        with dovecot(listen, ports[0], NAME, SECRET, more=more) as running:
            yield Peer(running.maildir, chain, *ports)


def greeted(server: Peer, channel: str) -> Conversation:
    """A connection whose greeting has been read."""
    host = other_address() if channel == "clear" else "127.0.0.1"
    port = server.tls_port if channel == "tls" else server.port
    talk = Conversation((host or "127.0.0.1", port), server.context)
    if channel == "tls":
        talk.start_tls()
    talk.hear(1)
    return talk


def play(server: Peer, transcript: Transcript) -> Deviation | None:
    """The first deviation, if there is one."""
    server.fill(transcript.messages)
    playing = _Playing(server, transcript.channel)
    try:
        for step in transcript.steps:
            if deviation := playing.step(step):
                return deviation
        return None
    finally:
        playing.close()


class _Playing:
    """A transcript under way, and the other session that it may have."""

    def __init__(self, server: Peer, channel: str) -> None:
        self._server = server
        self._channel = channel
        self._talk = greeted(server, channel)
        self._other: Conversation | None = None
        self._names = Names()

    def step(self, step: Step) -> Deviation | None:
        self._talk.send(step.sent)
        if step.event is Event.HALF_CLOSE:
            self._talk.half_close()
        got = self._talk.hear(len(step.expected)) if step.expected else b""
        if deviation := _differs(step, got, self._names):
            return deviation
        if step.event is Event.CLOSED and not self._talk.is_over():
            return Deviation(step.sent, b"(the connection ends)", b"(it stays open)")
        if step.event is Event.LEFT and self._server.messages() != step.value:
            said = [b"%d messages are left" % count for count in (step.value, self._server.messages())]
            return Deviation(step.sent, *said)
        self._happen(step.event)
        return None

    def _happen(self, event: Event | None) -> None:
        if event is Event.TLS:
            self._talk.start_tls()
        elif event is Event.DROP:
            self._talk.drop()
            time.sleep(0.3)
        elif event is Event.AGAIN:
            self._talk.socket.close()
            self._talk = greeted(self._server, self._channel)
        elif event is Event.DELIVERY:
            self._server.deliver(sized(99))
        elif event is Event.LOCKED:
            self._other = greeted(self._server, self._channel)
            self._other.send(f"USER {NAME}\r\nPASS {SECRET}\r\n".encode())
            self._other.hear(2)
        elif event is Event.UNLOCKED and self._other is not None:
            self._other.send(b"QUIT\r\n")
            self._other.hear(1)

    def close(self) -> None:
        for each in (self._talk, self._other):
            if each is not None:
                each.socket.close()
        time.sleep(0.05)


def _differs(step: Step, got: bytes, names: Names) -> Deviation | None:
    commands = iter(step.sent.split(b"\r\n"))
    lines = got.split(b"\r\n") if got else []
    if lines and lines[-1] == b"":
        lines.pop()
    asked = b""
    listing = False
    for at, want in enumerate(step.expected):
        if not listing:
            asked = next(commands, asked)
        listing = _goes_on(asked, want, listing=listing)
        have = lines[at] if at < len(lines) else NOTHING
        if not _fits(want, have, names):
            return Deviation(asked, want, have)
    if len(lines) > len(step.expected):
        return Deviation(asked, b"(nothing more)", lines[len(step.expected)])
    return None


def _goes_on(asked: bytes, line: bytes, *, listing: bool) -> bool:
    """Whether the line is followed by another one of the same reply."""
    if listing:
        return line != b"."
    verb, _, argument = asked.upper().partition(b" ")
    long = verb in (b"CAPA", b"RETR", b"TOP") or (verb in (b"LIST", b"UIDL", b"LANG") and not argument)
    return long and line.startswith(b"+OK")


def _fits(want: bytes, have: bytes, names: Names) -> bool:
    status = want.split(b" ")[0].removesuffix(b"...")
    if status not in (b"+OK", b"-ERR"):
        return fits(want, have, names)
    if (known := names.fit(want, have)) is not None:
        return known
    if have.split(b" ")[0] != status:
        return False
    if (code := _CODE.search(want)) and code[0] not in have:
        return False
    numbers = _NUMBERS.match(want)
    return numbers is None or have.startswith(b"+OK " + numbers[1])


def left_out(transcript: Transcript) -> str | None:
    """Why a transcript cannot be played here, if it cannot."""
    if transcript.runs == "pure" or transcript.channel == "bound":
        return "a store that fails when it is told to, or a nonce or a certificate known before"
    if transcript.login_delay_seconds:
        return "LOGIN-DELAY, which Dovecot does not have"
    if transcript.keep_days is not None:
        return "a retention that EXPIRE tells of, which Dovecot's POP3 does not have"
    if transcript.runs == "sockets":
        return "an autologout sooner than after ten minutes"
    return None


def page(version: str, results: list[tuple[Transcript, Deviation | None]], missing: list[str]) -> str:
    """The page as text."""
    differing = [(transcript, found) for transcript, found in results if found]
    rows = "".join(
        f"| {transcript.section} | {cell(transcript.behaviour.encode())} | `{cell(found.asked)}` "
        f"| `{cell(found.expected)}` | `{cell(found.got)}` |\n"
        for transcript, found in differing
    )
    reasons = "".join(f"\n- {missing.count(reason)}: {reason}" for reason in dict.fromkeys(missing))
    return f"""\
# POP3 beside Dovecot

The conversations of [the conformance suite](pop3-conformance.md), held with Dovecot {version} on the same
machine: Maildir, `pop3_lock_session = yes`, the same SASL mechanisms, otherwise its defaults. Texts
for people may differ here; status, response code, numbers and the lines of a listing may not.

This page is written by `python -m tests.pop3.beside_dovecot`, as root, where Debian's `dovecot-pop3d` is
installed; it starts a Dovecot of its own in a temporary folder. Run it again when a transcript has changed.

Of {len(results)} conversations Dovecot answers {len(results) - len(differing)} as mailstack does.
The others are below, each with the first line that differs. mailstack answers all of them as
the test suite expects, in every run; where it deviates from an RFC on purpose is said on the page of
the suite.

Of the {len(results) + len(missing)} conversations of the suite, some were not held with Dovecot, for want of
what they need:
{reasons}

Not every difference is a fault. An optional extension that Dovecot does not announce (`UTF8`, `LANG`) it need
not have, and CAPA lists differ as the servers do; surplus spaces within a line may be forgiven by a kind
server, which mailstack on purpose is not, since two readers of a line must not understand it differently.

| RFC | behaviour | asked | mailstack | Dovecot |
|---|---|---|---|---|
{rows}"""


def run() -> None:
    """Play everything that Dovecot can be asked, and write the page."""
    version = subprocess.run(["dovecot", "--version"], capture_output=True, text=True, check=True).stdout
    transcripts = read_all()
    missing = [reason for each in transcripts if (reason := left_out(each))]
    results = {}
    with peer() as server:
        for each in transcripts:
            if left_out(each) is None:
                results[str(each)] = each, play(server, each)
                print(each, results[str(each)][1] or "as expected")
    in_order = [results[str(each)] for each in transcripts if str(each) in results]
    PAGE.write_text(page(version.split()[0], in_order, missing), encoding="utf-8")


if __name__ == "__main__":
    run()
