"""Every transcript over a socket and on the real store: whole, octet by octet, cut at random, under TLS."""

from __future__ import annotations

import asyncio
import re

import pytest

from mailstack.errors import StoreUnavailable
from tests.smtp.conformance import PAGE, page
from tests.smtp.remarks import REMARKS
from tests.smtp.rig import Peer, Rig, running
from tests.smtp.transcript import EHLO, HELLO, Event, Step, Transcript, read, read_all
from tests.support.transcripts import Cut, at_random, mismatch, octet_by_octet, whole

ALL = read_all()

CUTS = {"whole": whole, "octets": octet_by_octet, "random": at_random}

# RFC 2034 §4 wants an enhanced code on every reply but the greeting, 354 and those to HELO and EHLO.
ENHANCED = re.compile(
    rb"(?:([245])\d\d[ -]\1\.\d{1,3}\.\d{1,3} [ -~]+|354 [ -~]+|250[ -](?:mx\.example\.org|PIPELINING|"
    rb"SIZE \d+|8BITMIME|SMTPUTF8|ENHANCEDSTATUSCODES|CHUNKING|LIMITS RCPTMAX=\d+|STARTTLS))\r\n"
)
OUR_RECEIVED = re.compile(rb"^Received: from [^\r]+\r\n(?:[ \t][^\r]+\r\n)*", re.MULTILINE)


def runs() -> list[tuple[Transcript, str, bool]]:
    """Which transcript, how it is cut, and whether under TLS."""
    found = []
    for transcript in ALL:
        cuts = ["whole"] if "whole" in transcript.runs else list(CUTS)
        found += [(transcript, cut, False) for cut in cuts]
        if "plain" not in transcript.runs:
            found += [(transcript, cut, True) for cut in cuts]
    return found


@pytest.mark.parametrize(
    ("transcript", "cut", "under_tls"),
    runs(),
    ids=lambda value: "tls" if value is True else "plain" if value is False else str(value),
)
async def test_transcript(transcript, cut, under_tls, furnished, tmp_path, tls):  # noqa: PLR0917 (fixtures)
    template = furnished[transcript.accounts]
    lmtp = transcript.listener == "lmtp"
    async with running(template, tmp_path, tls=tls, lmtp=lmtp, **transcript.settings) as rig:
        await Play(rig, transcript, CUTS[cut], under_tls=under_tls).run()


class Play:
    """One transcript against one rig."""

    def __init__(self, rig: Rig, transcript: Transcript, cut: Cut, *, under_tls: bool) -> None:
        self.rig = rig
        self.transcript = transcript
        self.cut = cut
        self.under_tls = under_tls

    async def run(self) -> None:
        peer = await self._connected()
        for step in self.transcript.steps:
            await self._send(peer, step.sent)
            # A half-close has to come with what was sent, not after its answers.
            if step.event is Event.HALF_CLOSE:
                peer.half_close()
            await self._expect(peer, step)
            peer = await self._happens(peer, step)
        await peer.close()

    async def _connected(self) -> Peer:
        hello = EHLO if self.transcript.listener == "smtp" else EHLO.replace(b"E", b"L", 1)
        return await (self.rig.connect_under_tls(hello) if self.under_tls else self.rig.connect())

    async def _send(self, peer: Peer, octets: bytes) -> None:
        for piece in filter(None, self.cut(octets)):
            if peer.writer.transport.is_closing():
                return  # the server ended the session before it had read everything
            peer.send(piece)
            await asyncio.sleep(0)

    async def _expect(self, peer: Peer, step: Step) -> None:
        expected, got = [line for line in step.expected if line != HELLO], []
        try:
            for line in step.expected:
                if line == HELLO:
                    assert (await peer.one_reply()).startswith(b"250")
                else:
                    got.append(await peer.line())
        except asyncio.IncompleteReadError as error:
            pytest.fail(f"{self.transcript}: after {step.sent!r}: no more than {got!r}, {error.partial!r}")
        if expected and (differs := mismatch(expected, b"".join(got))):
            pytest.fail(f"{self.transcript}: after {step.sent!r}: {differs}")
        for line in got:
            assert ENHANCED.fullmatch(line), f"{self.transcript}: {line!r} has no enhanced status code"

    async def _happens(self, peer: Peer, step: Step) -> Peer:
        match step.event:
            case Event.TLS:
                await peer.start_tls(self.rig.client_tls)
            case Event.DROP:
                peer.reset()
                await self.rig.until(lambda: not self.rig.listener.sessions)
            case Event.CLOSED:
                assert await peer.rest() == b""
            case Event.AGAIN:
                await peer.close()  # Python before 3.11.5 does not close what is dropped
                return await self._connected()
            case Event.STORE_FAILS:
                self.rig.store.deposit = failing(StoreUnavailable("the disk /dev/sda7 is on fire"))
            case Event.STORE_BREAKS:
                self.rig.store.deposit = failing(RuntimeError("SELECT secret FROM account"))
            case Event.STORE_HEALS:
                del self.rig.store.deposit
            case Event.REMOVED:
                await self.rig.remove(step.account)
            case Event.MAIL:
                newest = (await self.rig.mail(step.account))[-1]
                newest = OUR_RECEIVED.sub(b"", newest, count=1)  # shown whole in test_trace.py
                if differs := mismatch(step.message, newest):
                    pytest.fail(f"{self.transcript}: the mail of {step.account}: {differs}")
            case Event.MAILS:
                assert len(await self.rig.mail(step.account)) == step.count
        return peer


def failing(error: Exception):
    async def deposit(deposit: object) -> int:
        raise error

    return deposit


def test_the_table_of_conformance_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(ALL), "run python -m tests.smtp.conformance"


def test_what_is_said_of_another_server_is_said_of_a_conversation_that_is_held():
    assert REMARKS.keys() <= {transcript.behaviour for transcript in ALL}


def test_the_language_refuses_what_it_does_not_know(tmp_path):
    path = tmp_path / "wrong.txt"
    path.write_text("== RFC 5321 §3 | x\nD: what\n")
    with pytest.raises(ValueError, match=r"wrong\.txt:2"):
        list(read(path))
