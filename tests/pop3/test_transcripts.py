"""Every transcript, on the pure session: whole, octet by octet, and cut at random."""

from __future__ import annotations

import pytest

from mailstack.pop3.asks import Expunge, LogIn
from mailstack.pop3.session import VERBS
from mailstack.store.limits import Expiry
from tests.pop3 import beside_dovecot
from tests.pop3.conformance import PAGE, page
from tests.pop3.pure import CHANNELS, Maildrops, PureServer
from tests.pop3.transcript import Event, Transcript, read, read_all, sized
from tests.support.transcripts import Names, at_random, mismatch, octet_by_octet, whole

ALL = read_all()


@pytest.mark.parametrize("transcript", ALL, ids=str)
@pytest.mark.parametrize("cut", [whole, octet_by_octet, at_random])
def test_pure_session(transcript, cut):
    if transcript.runs == "whole" and cut is not whole:
        pytest.skip("what it shows depends on the packet")
    if transcript.runs == "sockets":
        pytest.skip("there is no time here")
    play(transcript, cut)


def play(transcript: Transcript, cut) -> None:
    maildrops = furnished(transcript)
    channel = CHANNELS[transcript.channel]._replace(
        login_delay_seconds=transcript.login_delay_seconds,
    )
    server = PureServer(maildrops, channel)
    names = Names()
    for step in transcript.steps:
        got = b"".join(map(server.feed, cut(step.sent)))
        if differs := mismatch(step.expected, got, names) if step.expected or got else None:
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
            case Event.DAMAGED:
                maildrops.damaged = True
            case Event.LEFT | Event.READ:
                assert counted(server, step.event) == step.value


def counted(server: PureServer, event: Event) -> int:
    """How many messages are left, or count as downloaded."""
    if event is Event.LEFT:
        return len(server.maildrops.messages)
    return sum(last - first + 1 for first, last in server.session.tally.read or ())


def furnished(transcript: Transcript) -> Maildrops:
    """What a transcript finds."""
    maildrops = Maildrops.of(*transcript.messages)
    maildrops.all_have_keys = transcript.scram
    maildrops.expiry = promised(transcript)
    if transcript.others_keep_days is not None:
        maildrops.expiry_of_all = Expiry(transcript.others_keep_days, differs=True)
    return maildrops


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


def test_the_language_knows_a_unique_id_again():
    names = Names()
    assert mismatch([b"1 <a>", b"2 <b>"], b"1 x.1\r\n2 x.2\r\n", names) is None
    assert mismatch([b"+OK 1 <b>"], b"+OK 1 x.2\r\n", names) is None
    for another in (b"+OK 1 x.1", b"+OK 1 x.22", b"+OK 1 ", b"+OK 2 x.2", b"+OK 1 x. 2", b"1 x.2"):
        assert mismatch([b"+OK 1 <b>"], another + b"\r\n", names) is not None
    assert mismatch([b"1 <c>"], b"1 x.2\r\n", names) is not None  # that is b's
    assert mismatch([b"1 <c>"], b"1 " + b"x" * 71 + b"\r\n", names) is not None


def test_the_table_of_conformance_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page(read_all()), "run python -m tests.pop3.conformance"


def test_the_page_beside_dovecot_counts_every_transcript():
    said = f"Of the {len(ALL)} conversations of the suite, some were not held with Dovecot"
    assert said in beside_dovecot.PAGE.read_text(encoding="utf-8"), "run python -m tests.pop3.beside_dovecot"


def test_every_verb_is_in_some_transcript():
    sent = b"\n".join(step.sent for transcript in ALL for step in transcript.steps)
    shown = {line.split(b" ")[0].rstrip(b"\r").upper() for line in sent.split(b"\n")}
    assert set(VERBS) <= shown
