"""Every transcript, on the pure session: whole, octet by octet, and cut at random."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailstack.pop3.asks import Expunge, LogIn
from mailstack.pop3.session import VERBS
from mailstack.store.limits import Expiry
from tests.pop3.conformance import PAGE, page
from tests.pop3.pure import CHANNELS, Maildrops, PureServer
from tests.pop3.transcript import Event, Transcript, read, read_all, sized
from tests.support.transcripts import at_random, mismatch, octet_by_octet, whole

ALL = read_all()


@pytest.mark.parametrize("transcript", ALL, ids=str)
@pytest.mark.parametrize("cut", [whole, octet_by_octet, at_random])
def test_pure_session(transcript, cut):
    if transcript.runs == "whole" and cut is not whole:
        pytest.skip("what it shows depends on the packet")
    play(transcript, cut)


def play(transcript: Transcript, cut) -> None:
    maildrops = Maildrops.of(*transcript.messages)
    maildrops.all_have_keys = transcript.scram
    maildrops.expiry = promised(transcript)
    channel = replace(
        CHANNELS[transcript.channel],
        stls=transcript.certificate,
        login_delay_seconds=transcript.login_delay_seconds,
    )
    server = PureServer(maildrops, channel)
    for step in transcript.steps:
        got = b"".join(map(server.feed, cut(step.sent)))
        if differs := mismatch(step.expected, got) if step.expected or got else None:
            pytest.fail(f"{transcript}: after {step.sent!r}: {differs}")
        match step.event:
            case Event.TLS:
                assert server.start_tls
                server.begin(CHANNELS["tls"])
            case Event.HALF_CLOSE | Event.DROP:
                server.end()
            case Event.AGAIN:
                server = PureServer(maildrops, channel)
            case Event.CLOSED:
                assert server.closed
                assert not maildrops.locked
            case Event.DELIVERY:
                maildrops.deliver(sized(99))
            case Event.LOCKED | Event.UNLOCKED:
                maildrops.locked = step.event is Event.LOCKED
            case Event.EXPUNGE_FAILS:
                maildrops.failing.add(Expunge)
            case Event.STORE_FAILS:
                maildrops.failing.add(LogIn)
            case Event.LEFT:
                assert len(maildrops.messages) == step.value


def promised(transcript: Transcript) -> Expiry | None:
    """As store/limits.py has it."""
    if transcript.keep_messages is not None:
        return None
    return Expiry(transcript.keep_days, differs=False)


def test_the_language_refuses_what_it_does_not_know(tmp_path):
    path = tmp_path / "wrong.txt"
    path.write_text("== RFC 1939 §3 | x\nD: what\n")
    with pytest.raises(ValueError, match=r"wrong\.txt:2"):
        list(read(path))


@pytest.mark.parametrize(
    ("expected", "got", "fits"),
    [
        ([b"+OK"], b"+OK\r\n", True),
        ([b"+OK ..."], b"+OK and more\r\n", True),
        ([b"+OK ..."], b"+OK\r\n", True),
        ([b"+OK"], b"+OK \r\n", False),
        ([b"+OK"], b"+OK", False),
        ([b"+OK", b"."], b"+OK\r\n", False),
        ([b"+OK"], b"+OK\r\n.\r\n", False),
        ([b"-ERR ..."], b"+OK\r\n", False),
    ],
)
def test_the_language_compares_line_by_line(expected, got, fits):
    assert (mismatch(expected, got) is None) is fits


def test_the_table_of_conformance_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(read_all()), "run python -m tests.pop3.conformance"


def test_every_verb_is_in_some_transcript():
    sent = b"\n".join(step.sent for transcript in ALL for step in transcript.steps)
    shown = {line.split(b" ")[0].rstrip(b"\r").upper() for line in sent.split(b"\n")}
    assert set(VERBS) <= shown
